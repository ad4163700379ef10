pub fn primes() -> impl Iterator<Item = u32> {
    let mut known: Vec<u32> = Vec::new();
    (2..).filter(move |number| {
        let prime = known
            .iter()
            .take_while(|prime| *prime * *prime <= *number)
            .all(|prime| number % prime != 0);
        if prime {
            known.push(*number);
        }
        prime
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn begins_with_two() {
        assert_eq!(super::primes().take(4).collect::<Vec<_>>(), [2, 3, 5, 7]);
    }
}
