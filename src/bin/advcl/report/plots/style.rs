//! Colours and shapes of series and classes.

/// Number of colours and shapes; further styles repeat them.
pub const STYLES: usize = 10;

/// The colour of a style: a variable of the page.
pub fn colour(style: usize) -> String {
    format!("var(--k{})", style % STYLES)
}

/// The corners of a style's shape, for a radius of 1, y downwards.
pub fn shape(style: usize) -> Vec<(f64, f64)> {
    let regular = |corners: usize, from: f64, radii: &[f64]| -> Vec<(f64, f64)> {
        (0..corners)
            .map(|i| {
                let angle = (from + i as f64 * 360.0 / corners as f64).to_radians();
                let radius = radii[i % radii.len()];
                (radius * angle.cos(), radius * angle.sin())
            })
            .collect()
    };
    let cross = |turn: f64| -> Vec<(f64, f64)> {
        let arms = [
            (-0.35, -1.1),
            (0.35, -1.1),
            (0.35, -0.35),
            (1.1, -0.35),
            (1.1, 0.35),
            (0.35, 0.35),
            (0.35, 1.1),
            (-0.35, 1.1),
            (-0.35, 0.35),
            (-1.1, 0.35),
            (-1.1, -0.35),
            (-0.35, -0.35),
        ];
        let (sin, cos) = turn.to_radians().sin_cos();
        arms.iter()
            .map(|(x, y)| (x * cos - y * sin, x * sin + y * cos))
            .collect()
    };
    match style % STYLES {
        0 => regular(12, 0.0, &[1.0]),
        1 => regular(4, 45.0, &[1.2]),
        2 => regular(3, -90.0, &[1.3]),
        3 => regular(4, 0.0, &[1.3]),
        4 => regular(3, 90.0, &[1.3]),
        5 => cross(0.0),
        6 => cross(45.0),
        7 => regular(10, -90.0, &[1.35, 0.55]),
        8 => vec![(-1.1, -1.1), (1.1, -1.1), (-1.1, 1.1), (1.1, 1.1)],
        _ => vec![(-1.3, -0.5), (1.3, -0.5), (1.3, 0.5), (-1.3, 0.5)],
    }
}
