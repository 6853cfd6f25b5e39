//! Tables of text cells, written for terminals, as Markdown, and as CSV.

use super::printable;
use crate::output::{bold, shortened};

/// The alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// For words.
    Left,
    /// For numbers.
    Right,
}

/// A table of text cells.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The heads of the columns; all of them empty for a table without a head.
    heads: Vec<String>,
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table without columns.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a column of words.
    pub fn left(self, head: impl Into<String>) -> Self {
        self.column(head, Align::Left)
    }

    /// Adds a column of numbers.
    pub fn right(self, head: impl Into<String>) -> Self {
        self.column(head, Align::Right)
    }

    /// Adds a column.
    pub fn column(mut self, head: impl Into<String>, align: Align) -> Self {
        self.heads.push(head.into());
        self.aligns.push(align);
        self
    }

    /// Adds a row with a cell for each column.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        debug_assert_eq!(cells.len(), self.heads.len(), "{cells:?}");
        self.rows.push(cells);
    }

    /// The heads of the columns.
    pub fn heads(&self) -> &[String] {
        &self.heads
    }

    /// The alignments of the columns.
    pub fn aligns(&self) -> &[Align] {
        &self.aligns
    }

    /// The rows below the heads.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Formats the table for a terminal. Every column is as wide as its widest cell; a cell that is longer than anyone reads is
    /// shortened.
    pub fn text(&self) -> String {
        let headless = self.heads.iter().all(String::is_empty);
        let head = (!headless).then_some(&self.heads);
        let lines: Vec<Vec<String>> = head
            .into_iter()
            .chain(&self.rows)
            .map(|row| {
                row.iter()
                    .map(|cell| shortened(&printable(cell)).into_owned())
                    .collect()
            })
            .collect();
        let width = |column: usize| {
            let cells = lines.iter().map(|line| line[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let mut text = String::new();
        for (row, line) in lines.iter().enumerate() {
            let cells = line.iter().zip(&widths).zip(&self.aligns);
            let cells = cells.map(|((cell, width), align)| padded(cell, *width, *align));
            let line: Vec<String> = cells.collect();
            let line = line.join("  ");
            let line = line.trim_end();
            match row == 0 && head.is_some() {
                true => text += &bold(line),
                false => text += line,
            }
            text.push('\n');
        }
        text
    }

    /// Formats the table as GitHub-flavoured Markdown. A cell is always one cell of plain text.
    pub fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let escaped = |row: &Vec<String>| line(row.iter().map(|cell| in_markdown(cell)).collect());
        let rule = self.aligns.iter().map(|align| match align {
            Align::Left => "---".to_owned(),
            Align::Right => "---:".to_owned(),
        });
        let mut text = escaped(&self.heads) + &line(rule.collect());
        text.extend(self.rows.iter().map(escaped));
        text
    }

    /// Formats the table as comma-separated values (RFC 4180), with the heads as the first line.
    pub fn csv(&self) -> String {
        let line = |row: &Vec<String>| {
            let cells: Vec<String> = row.iter().map(|cell| in_csv(cell)).collect();
            cells.join(",") + "\n"
        };
        std::iter::once(&self.heads)
            .chain(&self.rows)
            .map(line)
            .collect()
    }
}

/// A cell with the spaces that its column's width asks for. A width in a format string ends at 65,535.
fn padded(cell: &str, width: usize, align: Align) -> String {
    let spaces = " ".repeat(width.saturating_sub(cell.chars().count()));
    match align {
        Align::Left => format!("{cell}{spaces}"),
        Align::Right => format!("{spaces}{cell}"),
    }
}

/// Escapes the characters of a cell that have a meaning in Markdown.
fn in_markdown(text: &str) -> String {
    let mut escaped = String::new();
    for character in printable(text).chars() {
        match character {
            '\\' | '|' | '*' | '`' | '[' => escaped.extend(['\\', character]),
            '<' => escaped += "&lt;",
            '&' => escaped += "&amp;",
            other => escaped.push(other),
        }
    }
    escaped
}

/// Quotes a cell where CSV requires it.
pub fn in_csv(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new().left("name").right("n");
        table.row(["a|b, <i>", "1"]);
        table.row(["\"new\nline\" \u{1b}[31m", "1000"]);
        table
    }

    #[test]
    fn text_is_aligned_and_cannot_control_a_terminal() {
        let expected = "name                       n\n\
                        a|b, <i>                   1\n\
                        \"new\\nline\" \\u{1b}[31m  1000\n";
        assert_eq!(table().text(), expected);
        let mut pairs = Table::new().left("").left("");
        pairs.row(["a", "b"]);
        pairs.row(["long", ""]);
        assert_eq!(
            pairs.text(),
            "a     b\nlong\n",
            "no head, no spaces at the end"
        );
    }

    #[test]
    fn a_cell_of_any_length_is_shortened_for_people_and_whole_for_programs() {
        let name = "ü".repeat(70_000);
        for align in [Align::Left, Align::Right] {
            let mut table = Table::new().column("name", align).right(name.as_str());
            table.row([name.as_str(), "1"]);
            let text = table.text();
            assert!(text.contains("characters left out"), "{align:?}");
            let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
            assert!(widths[0] == widths[1] && widths[0] < 12_000, "{widths:?}");
            let whole = format!("name,{name}\n{name},1\n");
            assert!(table.csv() == whole);
            assert_eq!(table.markdown().matches(&name).count(), 2);
        }
        // Beyond what a format string pads to.
        assert_eq!(padded("a", 70_000, Align::Right).len(), 70_000);
        assert_eq!(padded("ü", 3, Align::Left), "ü  ");
    }

    #[test]
    fn markdown_and_csv_are_escaped() {
        let expected = "| name | n |\n| --- | ---: |\n\
                        | a\\|b, &lt;i> | 1 |\n\
                        | \"new\\\\nline\" \\\\u{1b}\\[31m | 1000 |\n";
        assert_eq!(table().markdown(), expected);
        let expected = "name,n\n\"a|b, <i>\",1\n\"\"\"new\nline\"\" \u{1b}[31m\",1000\n";
        assert_eq!(table().csv(), expected);
    }
}
