//! The page that `advcl report` writes, as a test sees it.

/// Values of an attribute, in order.
pub fn attributes<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!(" {name}=\"");
    let rest = page.split(begin.as_str()).skip(1);
    rest.filter_map(|rest| rest.split('"').next()).collect()
}

/// Checks what holds for every page: it loads nothing, its links have targets, its headings are in
/// order, and every picture and table has words.
#[track_caller]
pub fn check_page(page: &str) {
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
    assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"));
    for outside in [
        "http://", "https://", "<script", "@import", "url(", "<iframe", "NaN",
    ] {
        assert!(!page.contains(outside), "{outside} in the page");
    }
    let ids = attributes(page, "id");
    for link in attributes(page, "href") {
        let inside = link.strip_prefix('#').is_some_and(|id| ids.contains(&id));
        // A picture inside a plot is its own address.
        let own = link == "data:," || link.starts_with("data:image/png;base64,");
        assert!(inside || own, "a link to {link:.40}");
    }
    for source in attributes(page, "src") {
        assert!(source.starts_with("data:image/png;base64,"), "{source:.40}");
    }
    let mut once = ids.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), ids.len(), "an id twice in {ids:?}");
    // Headings go one level down at a time, and there is one title.
    let levels: Vec<usize> = page
        .match_indices("<h")
        .filter_map(|(at, _)| page[at + 2..].chars().next()?.to_digit(10))
        .map(|level| level as usize)
        .collect();
    assert_eq!(levels.iter().filter(|level| **level == 1).count(), 1);
    assert!(
        levels.windows(2).all(|pair| pair[1] <= pair[0] + 1),
        "{levels:?}"
    );
    // Pictures and tables have words.
    let count = |words: &str| page.matches(words).count();
    assert_eq!(count("<img "), attributes(page, "alt").len());
    let hidden = count("aria-hidden=\"true\"");
    let named = count("role=\"img\" aria-label=\"");
    assert!(count("<svg ") <= hidden + named, "an <svg> without words");
    let tables = page.split("<table").skip(1);
    for table in tables {
        let tag = table.split('>').next().unwrap_or_default();
        assert!(tag.contains(" aria-label="), "<table{tag}> has no words");
    }
    let heads = page.split("<th").skip(1);
    for head in heads.filter(|rest| !rest.starts_with("ead")) {
        let tag = head.split('>').next().unwrap_or_default();
        assert!(tag.contains(" scope="), "<th{tag}> has no scope");
    }
}

/// The words of a page, a line for each heading, paragraph, row of a table and the like; without
/// pictures, plots and styles.
pub fn words_of(page: &str) -> String {
    let mut words = String::new();
    let mut rest = page;
    while let Some((text, tag_on)) = rest.split_once('<') {
        words.push_str(&text.replace(['\n', '\u{a0}'], " "));
        let (tag, after) = tag_on.split_once('>').expect("a closed tag");
        let name = tag.split([' ', '/']).next().unwrap_or("");
        rest = after;
        match name {
            "style" | "svg" | "head" => {
                let end = format!("</{name}>");
                rest = after.split_once(&end).expect("a closed element").1;
            }
            "h1" | "h2" | "h3" | "h4" => words.push_str("\n# "),
            "td" | "th" => words.push_str(" | "),
            "span" if words.ends_with(|c: char| c == '%' || c.is_alphanumeric()) => words.push(' '),
            "p" | "li" | "tr" | "caption" | "figcaption" | "summary" | "pre" | "dt" | "dd"
            | "div" | "a" | "section" | "figure" => words.push('\n'),
            _ => {}
        }
    }
    for (entity, c) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&amp;", "&"),
    ] {
        words = words.replace(entity, c);
    }
    let lines = words.lines().map(|line| {
        let line = line.trim().trim_end_matches('|').trim_start_matches('|');
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    });
    let lines = lines.filter(|line| !line.is_empty());
    lines.map(|line| line + "\n").collect()
}
