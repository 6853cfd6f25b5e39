//! Checks that the attacks' settings share. A refusal is one line: "queries: expected 1 or more, found 0".

/// Refuses a count of 0.
pub fn at_least_one(key: &str, value: usize) -> Result<(), String> {
    if value == 0 {
        return Err(format!("{key}: expected 1 or more, found 0"));
    }
    Ok(())
}

/// Refuses values that are not finite, and those that are 0 or less.
pub fn positive(key: &str, value: f64) -> Result<(), String> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(format!("{key}: expected more than 0, found {value}"))
}
