//! Charts as SVG that a page holds inline: colours come from the page's CSS (light and dark), a `<title>` on every mark is its
//! tooltip, every mark has a class that says what it is.

/// Width of every chart, in its own units; the page scales it.
const WIDTH: f64 = 960.0;
/// Room for the labels of the vertical axis.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;

/// Text as HTML and SVG take it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A value of a day.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    /// As `2013-02-08`.
    pub(super) day: String,
    pub(super) value: f64,
}

/// A day to come.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expected {
    pub(super) day: String,
    pub(super) mean: f64,
    pub(super) lower: f64,
    pub(super) upper: f64,
}

/// A day to mark on the line, and what to say about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Marked {
    pub(super) day: String,
    pub(super) text: String,
}

/// The scales of a time chart.
struct Frame {
    days: usize,
    top: f64,
    height: f64,
}

impl Frame {
    fn x(&self, index: usize) -> f64 {
        #[allow(clippy::cast_precision_loss)] // A few hundred days.
        let share = index as f64 / (self.days.max(2) - 1) as f64;
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        12.0 + (1.0 - (value / self.top).clamp(0.0, 1.0)) * (self.height - 44.0)
    }
}

/// Past days as a line, days to come as a band with its mean, unusual days as dots.
pub(super) fn timeline(past: &[Point], to_come: &[Expected], marked: &[Marked]) -> String {
    let largest = past.iter().map(|p| p.value).chain(to_come.iter().map(|e| e.upper)).fold(1.0, f64::max);
    let frame = Frame { days: past.len() + to_come.len(), top: nice(largest), height: 340.0 };
    let mut svg = open(frame.height, "Departures a day in 2013, the forecast of four weeks, and unusual days");
    svg += &grid(&frame);
    svg += &months(&frame, past.iter().map(|p| p.day.as_str()).chain(to_come.iter().map(|e| e.day.as_str())));
    let line = path(past.iter().enumerate().map(|(i, p)| (frame.x(i), frame.y(p.value))));
    svg += &format!("<path class=\"line\" d=\"{line}\"/>");
    svg += &band(&frame, past.len(), to_come);
    for (index, point) in past.iter().enumerate() {
        let (x, y) = (frame.x(index), frame.y(point.value));
        let title = format!("{}: {:.0} departures", point.day, point.value);
        match marked.iter().find(|m| m.day == point.day) {
            Some(mark) => {
                let title = escape(&format!("{title}. {}", mark.text));
                svg += &format!(
                    "<circle class=\"anomaly\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"><title>{title}</title></circle>"
                );
            }
            None => svg += &hover(x, y, &title),
        }
    }
    svg + "</svg>"
}

fn band(frame: &Frame, first: usize, to_come: &[Expected]) -> String {
    if to_come.is_empty() {
        return String::new();
    }
    let at = |i: usize| frame.x(first + i);
    let upper = to_come.iter().enumerate().map(|(i, e)| (at(i), frame.y(e.upper)));
    let lower = to_come.iter().enumerate().rev().map(|(i, e)| (at(i), frame.y(e.lower)));
    let mut svg = format!("<path class=\"band\" d=\"{}Z\"/>", path(upper.chain(lower)));
    let mean = path(to_come.iter().enumerate().map(|(i, e)| (at(i), frame.y(e.mean))));
    svg += &format!("<path class=\"forecast\" d=\"{mean}\"/>");
    for (i, e) in to_come.iter().enumerate() {
        let title = format!("{}: {:.0} expected, between {:.0} and {:.0}", e.day, e.mean, e.lower, e.upper);
        svg += &hover(at(i), frame.y(e.mean), &title);
    }
    svg
}

/// An invisible spot that carries a tooltip.
fn hover(x: f64, y: f64, title: &str) -> String {
    format!("<circle class=\"spot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"><title>{}</title></circle>", escape(title))
}

fn grid(frame: &Frame) -> String {
    let mut svg = String::new();
    for step in 0..=4 {
        let value = frame.top * f64::from(step) / 4.0;
        let y = frame.y(value);
        svg += &format!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>", WIDTH - RIGHT);
        svg += &format!(
            "<text class=\"axis\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>",
            LEFT - 8.0,
            y + 4.0
        );
    }
    svg
}

/// The name of each month under its first day.
fn months<'a>(frame: &Frame, days: impl Iterator<Item = &'a str>) -> String {
    const NAMES: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut svg = String::new();
    for (index, day) in days.enumerate().filter(|(_, day)| day.ends_with("-01")) {
        let month = day.get(5..7).and_then(|m| m.parse::<usize>().ok()).unwrap_or(1);
        let name = NAMES.get(month.wrapping_sub(1)).copied().unwrap_or_default();
        svg +=
            &format!("<text class=\"axis\" x=\"{:.1}\" y=\"{:.0}\">{name}</text>", frame.x(index), frame.height - 10.0);
    }
    svg
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let commands = points.enumerate().map(|(i, (x, y))| format!("{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' }));
    commands.collect()
}

/// A bar: its label, its value, what to say beside it and about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: f64,
    pub(super) shown: String,
    pub(super) title: String,
}

/// Horizontal bars, in their order.
pub(super) fn bars(name: &str, bars: &[Bar]) -> String {
    const ROW: f64 = 30.0;
    const LABELS: f64 = 250.0;
    const VALUES: f64 = 120.0;
    #[allow(clippy::cast_precision_loss)] // A few bars.
    let height = bars.len() as f64 * ROW + 8.0;
    let largest = bars.iter().map(|b| b.value).fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = open(height, name);
    let mut y = 4.0;
    for bar in bars {
        let width = (bar.value.max(0.0) / largest * (WIDTH - LABELS - VALUES)).max(1.0);
        let middle = y + ROW / 2.0 + 4.0;
        svg += &format!(
            "<text class=\"label\" x=\"{:.0}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
            LABELS - 10.0,
            escape(&bar.label)
        );
        svg += &format!(
            "<rect class=\"bar\" x=\"{LABELS}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.0}\" rx=\"3\"><title>{}</title></rect>",
            y + 4.0,
            ROW - 8.0,
            escape(&bar.title)
        );
        svg += &format!(
            "<text class=\"value\" x=\"{:.1}\" y=\"{middle:.1}\">{}</text>",
            LABELS + width + 8.0,
            escape(&bar.shown)
        );
        y += ROW;
    }
    svg + "</svg>"
}

fn open(height: f64, name: &str) -> String {
    let name = escape(name);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{name}\" xmlns=\"http://www.w3.org/2000/svg\">"
    )
}

/// The next larger number of the form 1, 2, 4, 5 or 8 times a power of ten.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1.0).log10().floor());
    [1.0, 1.2, 1.6, 2.0, 4.0, 5.0, 8.0, 10.0].iter().map(|m| m * power).find(|top| *top >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past() -> Vec<Point> {
        (1..=3).map(|d| Point { day: format!("2013-01-{d:02}"), value: 100.0 * f64::from(d) }).collect()
    }

    #[test]
    fn an_unusual_day_is_a_mark_with_its_explanation() {
        let marked = [Marked { day: "2013-01-02".into(), text: "snow & <ice>".into() }];
        let to_come = [Expected { day: "2013-01-04".into(), mean: 300.0, lower: 250.0, upper: 350.0 }];
        let svg = timeline(&past(), &to_come, &marked);
        assert_eq!(svg.matches("class=\"anomaly\"").count(), 1);
        assert_eq!(svg.matches("class=\"band\"").count(), 1);
        assert!(svg.contains("2013-01-02: 200 departures. snow &amp; &lt;ice&gt;"), "{svg}");
        assert!(svg.contains("300 expected, between 250 and 350"), "{svg}");
    }

    #[test]
    fn larger_values_stand_higher() {
        let frame = Frame { days: 3, top: 300.0, height: 340.0 };
        assert!(frame.y(300.0) < frame.y(100.0) && frame.x(0) < frame.x(2));
    }

    #[test]
    fn the_largest_bar_fills_the_row_and_the_others_are_in_proportion() {
        let bar = |value: f64| Bar { label: "a".into(), value, shown: "1".into(), title: "t".into() };
        let svg = bars("x", &[bar(10.0), bar(5.0)]);
        assert!(svg.contains("width=\"590.0\"") && svg.contains("width=\"295.0\""), "{svg}");
    }

    #[test]
    fn the_axis_ends_at_a_round_number() {
        assert_eq!([nice(999.0), nice(1001.0), nice(3.0)], [1000.0, 1200.0, 4.0]);
    }
}
