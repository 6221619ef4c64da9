//! Tables on standard output: columns as wide as their widest cell, numbers to the right.

/// Renders rows under a header; the first column is left-aligned, the others right-aligned unless they are the last and hold prose.
pub(crate) fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let columns = header.len();
    let width = |c: usize| {
        let cells = rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count());
        cells.chain([header[c].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: &[&str]| {
        let mut out = String::new();
        for (i, (cell, &w)) in cells.iter().zip(&widths).enumerate() {
            if i > 0 {
                out.push_str("  ");
            }
            let pad = " ".repeat(w.saturating_sub(cell.chars().count()));
            match i {
                0 => out.extend([cell, pad.as_str()]),
                _ => out.extend([pad.as_str(), cell]),
            }
        }
        out.trim_end().to_owned() + "\n"
    };
    let mut out = line(header);
    for row in rows {
        out += &line(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = [vec!["Q4_K_M".to_owned(), "1.5".to_owned()], vec!["F16".to_owned(), "12.25".to_owned()]];
        assert_eq!(super::render(&["type", "ppl"], &rows), "type      ppl\nQ4_K_M    1.5\nF16     12.25\n");
    }
}
