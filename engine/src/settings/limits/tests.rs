//! Tests of limits.

use super::*;

fn capacity() -> Capacity {
    Capacity {
        processors: vec![0, 1],
        memory_nodes: vec![0],
        counts_swap: true,
        is_unified: false,
        can_raise_limits: true,
    }
}

fn fault(limits: &Limits) -> String {
    limits.check(&capacity()).unwrap_err().to_string()
}

#[test]
fn limits_out_of_range_are_refused() {
    let none = Limits::default;
    for (limits, expected) in [
        (Limits { memory: 1024, ..none() }, "Minimum memory limit allowed is 6MB"),
        (Limits { memory_reservation: 1024, ..none() }, "Minimum memory reservation allowed is 6MB"),
        (Limits { memory_swap: 8 << 20, ..none() }, "You should always set the Memory limit"),
        (
            Limits { memory: 9 << 20, memory_swap: 8 << 20, ..none() },
            "Minimum memoryswap limit should be larger",
        ),
        (
            Limits { memory: 8 << 20, memory_reservation: 9 << 20, ..none() },
            "can not be less than memory reservation",
        ),
        (Limits { memory_swappiness: Some(101), ..none() }, "valid memory swappiness range is 0-100"),
        (Limits { oom_score_adj: 1001, ..none() }, "range for oom score adj is [-1000, 1000]"),
        (Limits { nano_cpus: 3 * NANO, ..none() }, "range of CPUs is from 0.01 to 2.00, as there are only 2"),
        (Limits { nano_cpus: NANO, cpu_quota: 1000, ..none() }, "Nano CPUs and CPU Quota cannot both be set"),
        (
            Limits { nano_cpus: NANO, cpu_period: 1000, ..none() },
            "Nano CPUs and CPU Period cannot both be set",
        ),
        (Limits { cpu_period: 999, ..none() }, "CPU cfs period can not be less than 1ms"),
        (Limits { cpu_quota: 999, ..none() }, "CPU cfs quota can not be less than 1ms"),
        (
            Limits { cpuset_cpus: "0-2".into(), ..none() },
            "Requested CPUs are not available - requested 0-2, available: 0,1",
        ),
        (Limits { cpuset_cpus: "a".into(), ..none() }, "Invalid value a for cpuset cpus"),
        (Limits { cpuset_mems: "1".into(), ..none() }, "Requested memory nodes are not available"),
        (Limits { block_weight: 5, ..none() }, "Range of blkio weight is from 10 to 1000"),
        (Limits { shm_size: -1, ..none() }, "SHM size can not be less than 0"),
    ] {
        assert!(fault(&limits).contains(expected), "{limits:?}: {}", fault(&limits));
    }
    assert_eq!(none().check(&capacity()), Ok(Vec::new()));
}

#[test]
fn the_host_decides_what_is_enforced() {
    let limits =
        Limits { memory: 8 << 20, memory_swappiness: Some(1), oom_kill_disable: true, ..Limits::default() };
    assert_eq!(limits.check(&capacity()), Ok(Vec::new()));
    let poor = Capacity { counts_swap: false, is_unified: true, ..capacity() };
    assert_eq!(limits.check(&poor).unwrap().len(), 3);
    let resources =
        |capacity: &Capacity| limits.resources(capacity, |_| Ok::<_, ()>((8, 0))).unwrap().memory().unwrap();
    assert_eq!(
        (resources(&capacity()).swap(), resources(&capacity()).swappiness()),
        (Some(16 << 20), Some(1))
    );
    assert_eq!((resources(&poor).swap(), resources(&poor).swappiness()), (None, None));
    assert_eq!(resources(&poor).disable_oom_killer(), None);
}

#[test]
fn processors_become_a_quota() {
    let limits = Limits { nano_cpus: processors("1.5").unwrap(), ..Limits::default() };
    assert_eq!((limits.cpu().quota(), limits.cpu().period()), (Some(150_000), Some(100_000)));
    assert_eq!((processors(".01").unwrap(), processors("2").unwrap()), (NANO / 100, 2 * NANO));
    assert_eq!((processors("3/2").unwrap(), processors("15e-1").unwrap()), (NANO * 3 / 2, NANO * 3 / 2));
    assert_eq!(
        (processors("-1").unwrap(), processors(".0").unwrap(), processors("1e1").unwrap()),
        (-NANO, 0, 10 * NANO)
    );
    for text in
        ["", "x", "1.5.1", "1.-5", ".", "-", "1/0", "1/3", "e1", "1e99", "0.0000000001", "99999999999"]
    {
        assert!(processors(text).is_err(), "{text}");
    }
}

#[test]
fn rates_of_devices() {
    let rate = |path: &str, rate| DeviceRate { path: path.to_owned(), rate };
    assert_eq!(byte_rate("device-read-bps", "/dev/sda:1mb"), Ok(rate("/dev/sda", 1 << 20)));
    assert_eq!(operation_rate("device-read-iops", "/dev/sda:30"), Ok(rate("/dev/sda", 30)));
    assert_eq!(device_weight("/dev/sda:10").unwrap().weight, 10);
    for text in ["/dev/sda", "/dev/sda:x", "sda:1", ":1", "/dev/sda:-1", "/dev/sda:1:2"] {
        assert!(byte_rate("device-read-bps", text).is_err(), "{text}");
        assert!(operation_rate("device-read-iops", text).is_err(), "{text}");
        assert!(device_weight(text).is_err(), "{text}");
    }
    let limits = Limits { read_bps: vec![rate("/dev/x", 7)], ..Limits::default() };
    let block = limits.block_io(|path| if path == "/dev/x" { Ok((8, 1)) } else { Err(()) }).unwrap();
    let device = block.throttle_read_bps_device().as_ref().unwrap()[0];
    assert_eq!((device.major(), device.minor(), device.rate()), (8, 1, 7));
}

#[test]
fn ulimits() {
    let read = ulimit("nofile=5:6").unwrap();
    assert_eq!((read.name.as_str(), read.soft, read.hard), ("nofile", 5, 6));
    assert_eq!(ulimit("core=-1").unwrap().hard, u64::MAX);
    for text in ["nofile", "nofile=x", "nofile=6:5", "files=1", "nofile=-2", "=1"] {
        assert!(ulimit(text).is_err(), "{text}");
    }
    // The last of two counts.
    let limits =
        Limits { ulimits: vec![ulimit("core=1").unwrap(), ulimit("core=2").unwrap()], ..Limits::default() };
    let limits = limits.rlimits(true).unwrap();
    assert_eq!((limits.len(), limits[0].soft()), (1, 2));
}
