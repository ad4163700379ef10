//! Prints the first prime numbers.

mod sieve;

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let count = env::args().nth(1).or_else(|| env::var("PRIMES").ok());
    let Some(count) = count.and_then(|count| count.parse().ok()) else {
        eprintln!("usage: primes COUNT");
        return ExitCode::from(2);
    };
    let mut buffer = itoa::Buffer::new();
    let mut line = String::new();
    for prime in sieve::primes().take(count) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(buffer.format(prime));
    }
    println!("primes {}: {line}", env!("CARGO_PKG_VERSION"));
    ExitCode::SUCCESS
}
