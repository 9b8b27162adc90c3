//! Plain tables: columns as wide as their widest cell, numbers to the right.

/// A table of text cells; the first row is its head.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Columns from the left whose cells stand to the left.
    left_columns: usize,
}

impl Table {
    /// A table with this head, of which the first `left_columns` columns stand to the left.
    pub fn new(head: &[&str], left_columns: usize) -> Table {
        Table { rows: vec![head.iter().map(|cell| (*cell).to_string()).collect()], left_columns }
    }

    /// One more row.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.rows[0].len(), "every row has a cell for each column");
        self.rows.push(cells);
    }

    /// The table in HTML.
    pub fn html(&self) -> String {
        let row = |cells: &Vec<String>, tag: &str| {
            let cell = |(column, cell): (usize, &String)| {
                let class = if column < self.left_columns { "" } else { " class=\"number\"" };
                format!("<{tag}{class}>{}</{tag}>", escaped(cell))
            };
            format!("<tr>{}</tr>", cells.iter().enumerate().map(cell).collect::<String>())
        };
        let body: String = self.rows[1..].iter().map(|cells| row(cells, "td") + "\n").collect();
        format!(
            "<div class=\"wide\"><table>\n<thead>{}</thead>\n<tbody>\n{body}</tbody>\n</table></div>\n",
            row(&self.rows[0], "th")
        )
    }

    /// The table as lines, with a rule under the head.
    pub fn render(&self) -> String {
        let columns = self.rows[0].len();
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .enumerate()
                .map(|(column, cell)| {
                    let padding = " ".repeat(widths[column] - cell.chars().count());
                    if column < self.left_columns {
                        format!("{cell}{padding}")
                    } else {
                        format!("{padding}{cell}")
                    }
                })
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
            if number == 0 {
                let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                text.push_str(&rules.join("  "));
                text.push('\n');
            }
        }
        text
    }
}

/// A text as it stands in HTML.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number with about three digits that mean something.
pub fn number(value: f64) -> String {
    // Nobody wants to read of less than nothing where it is nothing.
    let value = if value.abs() < 0.005 { 0.0 } else { value };
    match value.abs() {
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The same, or a dash where there is none.
pub fn number_or_dash(value: Option<f64>) -> String {
    value.map_or("-".into(), number)
}

/// A share as per cent.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    format!("{:.1}", if percent.abs() < 0.05 { 0.0 } else { percent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["policy", "ms"], 1);
        table.row(vec!["a".into(), number(1234.5)]);
        table.row(vec!["longer name".into(), number(1.0)]);
        assert_eq!(
            table.render(),
            "policy         ms\n-----------  ----\na            1234\nlonger name  1.00\n"
        );
    }
}
