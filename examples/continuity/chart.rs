//! A picture of lines over a range of sizes, as text (SVG). Pure.

use std::fmt::Write;

/// What grows with what.
#[derive(Debug)]
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    /// What is written below, at logarithmic distances.
    pub(crate) across: &'a str,
    /// What is written at the side, with its unit.
    pub(crate) up: &'a str,
    pub(crate) lines: Vec<Line<'a>>,
}

/// One line, from left to right.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// All of it, in the unit of the text's coordinates.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 340.0;

/// Where the lines are.
const LEFT: f64 = 76.0;
const RIGHT: f64 = WIDTH - 40.0;
const TOP: f64 = 78.0;
const BOTTOM: f64 = HEIGHT - 58.0;

/// Horizontal lines, that at the foot not counted.
const STEPS: u32 = 4;

/// What readers of a light and of a dark page see; the picture has a ground of its own, so that either is
/// readable on both.
const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#4c5561}\
.title{font-size:15px;font-weight:600;fill:#1b2026}\
.ground{fill:#fff}.grid{stroke:#dfe3e8}\
.line{fill:none;stroke-width:2.5}\
.c0{stroke:#2563b0}.f0{fill:#2563b0}.c1{stroke:#b4541a}.f1{fill:#b4541a}.c2{stroke:#1f7a4d}.f2{fill:#1f7a4d}\
@media(prefers-color-scheme:dark){\
text{fill:#b3bcc8}.title{fill:#f2f5f9}.ground{fill:#1b2026}.grid{stroke:#39424e}\
.c0{stroke:#7fb0ea}.f0{fill:#7fb0ea}.c1{stroke:#eda26d}.f1{fill:#eda26d}.c2{stroke:#74c69d}.f2{fill:#74c69d}}";

impl Chart<'_> {
    /// The picture.
    pub(crate) fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\n<title>{}</title>\n\
             <style>{STYLE}</style>\n\
             <rect class=\"ground\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"8\"/>\n",
            self.title
        );
        text(&mut svg, (20.0, 30.0), "class=\"title\"", self.title);
        self.draw_names(&mut svg);
        self.draw_axes(&mut svg);
        for (number, line) in self.lines.iter().enumerate() {
            let points: Vec<_> = line.points.iter().map(|it| self.place(*it)).collect();
            let path: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ =
                writeln!(svg, "<polyline class=\"line c{number}\" points=\"{}\"/>", path.join(" "));
            for (x, y) in points {
                let _ = writeln!(
                    svg,
                    "<circle class=\"f{number}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>"
                );
            }
        }
        svg + "</svg>\n"
    }

    /// The unit at the left, and the names of the lines with their colours.
    fn draw_names(&self, svg: &mut String) {
        text(svg, (20.0, 56.0), "", self.up);
        if self.lines.len() < 2 {
            return;
        }
        let mut x = RIGHT;
        for (number, line) in self.lines.iter().enumerate().rev() {
            text(svg, (x, 56.0), "text-anchor=\"end\"", line.name);
            // About as wide as it is drawn.
            x -= line.name.chars().count() as f64 * 7.4 + 12.0;
            let _ =
                writeln!(svg, "<circle class=\"f{number}\" cx=\"{x:.1}\" cy=\"51.5\" r=\"5\"/>");
            x -= 20.0;
        }
    }

    fn draw_axes(&self, svg: &mut String) {
        let step = self.step();
        for number in 0..=STEPS {
            let value = step * f64::from(number);
            let (_, y) = self.place((1.0, value));
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
            text(svg, (LEFT - 10.0, y + 4.5), "text-anchor=\"end\"", &grouped(value));
        }
        let mut sizes = self.sizes();
        sizes.sort_by(f64::total_cmp);
        sizes.dedup();
        for size in sizes {
            let (x, _) = self.place((size, 0.0));
            text(svg, (x, BOTTOM + 22.0), "text-anchor=\"middle\"", &grouped(size));
        }
        let middle = f64::midpoint(LEFT, RIGHT);
        text(svg, (middle, BOTTOM + 44.0), "text-anchor=\"middle\"", self.across);
    }

    fn sizes(&self) -> Vec<f64> {
        self.lines.iter().flat_map(|line| line.points.iter().map(|(size, _)| *size)).collect()
    }

    fn place(&self, (size, value): (f64, f64)) -> (f64, f64) {
        let (least, most) = self
            .sizes()
            .iter()
            .fold((f64::INFINITY, 1.0), |(least, most), it| (it.min(least), it.max(most)));
        let share = (size / least).ln() / (most / least).max(1.001).ln();
        let height = value / (self.step() * f64::from(STEPS));
        (LEFT + (RIGHT - LEFT) * share, BOTTOM - (BOTTOM - TOP) * height)
    }

    /// A round number, so that all values are below so many of it.
    fn step(&self) -> f64 {
        let values = self.lines.iter().flat_map(|line| line.points.iter().map(|(_, it)| *it));
        let least = values.fold(1e-9, f64::max) / f64::from(STEPS);
        let power = 10_f64.powf(least.log10().floor());
        let round = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 10.0].map(|it| it * power);
        round.into_iter().find(|it| *it >= least).unwrap_or(10.0 * power)
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), attributes: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{text}</text>");
}

/// With a comma after thousands, and a fraction if there is one.
fn grouped(value: f64) -> String {
    let text = ((value * 1e3).round() / 1e3).to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if !fraction.is_empty() {
        grouped = format!("{grouped}.{fraction}");
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        let written = [0.0, 0.5, 8.0, 512.0, 1_000.0, 100_000.0, 12_500.25].map(grouped);
        assert_eq!(written, ["0", "0.5", "8", "512", "1,000", "100,000", "12,500.25"]);
    }

    #[test]
    fn all_points_are_within_the_axes() {
        let line = |points: &[(f64, f64)]| Line { name: "one", points: points.to_vec() };
        let lines = vec![line(&[(2.0, 7.0), (512.0, 9.9)]), line(&[(8.0, 0.0)])];
        let chart = Chart { title: "T", across: "slots", up: "µs", lines };
        // Four of 2.5 are the first round number above.
        assert!((chart.step() - 2.5).abs() < 1e-9);
        assert_eq!(chart.place((2.0, 0.0)), (LEFT, BOTTOM));
        let (x, y) = chart.place((512.0, 10.0));
        assert!((x - RIGHT).abs() < 1e-6 && (y - TOP).abs() < 1e-6, "{x} {y}");
        let svg = chart.svg();
        assert_eq!(svg.matches("<circle").count(), 3 + 2);
        assert!(svg.contains(">512</text>") && svg.ends_with("</svg>\n"));
    }
}
