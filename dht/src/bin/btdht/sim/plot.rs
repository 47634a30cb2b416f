//! The curves of a report as an SVG file, one chart below the other.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use btdht::sim::scenario::{Chart, Report, Scenario};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

use crate::failure::Failure;

/// Pixels.
const WIDTH: u32 = 900;
const HEIGHT: u32 = 420;
const FONT: (&str, i32) = ("sans-serif", 16);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Whether `file` can be written, before there is anything to write: what is there stays as it is. Pipes and
/// devices are not touched.
///
/// # Errors
/// [`Failure::disk`].
pub(crate) fn check(file: &Path) -> Result<(), Failure> {
    let tried = match std::fs::metadata(file) {
        Ok(found) if found.is_file() || found.is_dir() => {
            OpenOptions::new().append(true).open(file).map(drop)
        }
        Ok(_) => Ok(()),
        Err(_) => OpenOptions::new().write(true).create_new(true).open(file).and_then(|created| {
            drop(created);
            std::fs::remove_file(file)
        }),
    };
    tried.map_err(|error| unwritable(file, &error))
}

fn unwritable(file: &Path, error: &io::Error) -> Failure {
    Failure::disk(format!("writing {}: {error}", file.display().to_string().escape_debug()))
}

/// Draws all charts into `file`.
///
/// # Errors
/// [`Failure::disk`]; wrong usage if there is nothing to draw.
pub(crate) fn draw(scenario: &Scenario, report: &Report, file: &Path) -> Result<(), Failure> {
    let mut svg = String::new();
    picture(scenario, &report.charts, &mut svg)
        .map_err(|error| Failure::other(format!("drawing: {error}")))?;
    std::fs::write(file, svg).map_err(|error| unwritable(file, &error))
}

fn picture(
    scenario: &Scenario,
    charts: &[Chart],
    svg: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let size = (WIDTH, HEIGHT * charts.len().max(1) as u32);
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    for (chart, area) in charts.iter().zip(root.split_evenly((charts.len().max(1), 1))) {
        let title = format!("{}: {}", scenario.name, chart.title);
        let [x, y] = [bounds(chart, |point| point.0), bounds(chart, |point| point.1)];
        let y = y.0.min(0.0)..y.1;
        if chart.log_x {
            curves(&area, chart, &title, Log::new(chart, x), y)?;
        } else {
            curves(&area, chart, &title, x.0..x.1, y)?;
        }
    }
    root.present()?;
    Ok(())
}

fn curves<X>(
    area: &Area<'_>,
    chart: &Chart,
    title: &str,
    x: X,
    y: std::ops::Range<f64>,
) -> Result<(), Box<dyn std::error::Error>>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut builder = ChartBuilder::on(area);
    builder.caption(title, FONT).margin(14).x_label_area_size(44).y_label_area_size(60);
    let mut axes = builder.build_cartesian_2d(x, y)?;
    axes.configure_mesh().x_desc(chart.x).y_desc(chart.y).light_line_style(WHITE.mix(0.0)).draw()?;
    for (number, curve) in chart.curves.iter().enumerate() {
        let style = Palette99::pick(number).stroke_width(2);
        let line = axes.draw_series(LineSeries::new(curve.points.iter().copied(), style))?;
        line.label(&curve.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    axes.configure_series_labels().background_style(WHITE.mix(0.85)).border_style(BLACK.mix(0.4)).draw()?;
    Ok(())
}

/// An axis on which equal ratios are equally far apart.
#[derive(Clone)]
struct Log {
    range: std::ops::Range<f64>,
    ticks: Vec<f64>,
}

impl Log {
    /// Marks the values that were measured if they are few, and round ones otherwise.
    fn new(chart: &Chart, (least, greatest): (f64, f64)) -> Self {
        let range = least.max(1e-3)..greatest.max(2e-3);
        let mut ticks: Vec<f64> =
            chart.curves.iter().flat_map(|curve| &curve.points).map(|point| point.0).collect();
        ticks.sort_unstable_by(f64::total_cmp);
        ticks.dedup();
        if ticks.len() > TICKS {
            let decades = (-3..=12).map(|power| 10f64.powi(power));
            ticks = decades.flat_map(|decade| [decade, 2.0 * decade, 5.0 * decade]).collect();
        }
        ticks.retain(|tick| (range.start..=range.end).contains(tick));
        Self { range, ticks }
    }
}

/// Values that have room on an axis.
const TICKS: usize = 12;

impl Ranged for Log {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let whole = (self.range.end / self.range.start).ln();
        let share = (value.max(self.range.start) / self.range.start).ln() / whole;
        first + (share * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Log {
    fn format(value: &f64) -> String {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// The least and the greatest value, never the same.
fn bounds(chart: &Chart, of: impl Fn(&(f64, f64)) -> f64) -> (f64, f64) {
    let values = || chart.curves.iter().flat_map(|curve| &curve.points).map(&of);
    let (least, greatest) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let least = if least.is_finite() { least } else { 0.0 };
    (least, if greatest > least { greatest } else { least + 1.0 })
}

#[cfg(test)]
mod tests {
    use btdht::sim::scenario::Curve;

    use super::*;

    fn chart(log_x: bool, points: Vec<(f64, f64)>) -> Chart {
        let curves = vec![
            Curve { name: "cold & <dark>".into(), points },
            Curve { name: "empty".into(), points: Vec::new() },
        ];
        Chart { title: "a title", x: "ids", log_x, y: "share", curves }
    }

    fn drawn(charts: &[Chart]) -> String {
        let mut svg = String::new();
        picture(btdht::sim::scenario::ALL[0], charts, &mut svg).unwrap();
        svg
    }

    #[test]
    fn every_chart_has_its_title_axes_and_curves_and_names_are_escaped() {
        let svg = drawn(&[
            chart(true, vec![(16.0, 1.0), (4096.0, 0.2)]),
            chart(false, vec![(0.0, 0.0), (3.0, 9.0)]),
        ]);
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert_eq!(svg.matches("a title").count(), 2);
        assert!(svg.contains("cold &amp; &lt;dark&gt;") && svg.contains("share"));
        assert!(svg.matches("<polyline").count() >= 4);
    }

    #[test]
    fn a_path_is_tried_before_there_is_anything_to_draw_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        check(&at("new.svg")).unwrap();
        assert!(!at("new.svg").exists());
        std::fs::write(at("old.svg"), "old").unwrap();
        check(&at("old.svg")).unwrap();
        assert_eq!(std::fs::read(at("old.svg")).unwrap(), b"old");
        for bad in [folder.path().to_owned(), at("none/new.svg"), at("old.svg/new.svg")] {
            let failure = format!("{:?}", check(&bad).unwrap_err());
            assert!(failure.contains("code: 5") && failure.contains("writing"), "{failure}");
        }
    }

    #[test]
    fn a_logarithmic_axis_marks_what_was_measured_or_round_values_once_each() {
        let points = |xs: &[f64]| xs.iter().map(|&x| (x, 1.0)).collect::<Vec<_>>();
        let ids = [16.0, 64.0, 256.0, 1024.0, 4096.0];
        let svg = drawn(&[chart(true, points(&ids))]);
        for tick in ["16", "64", "256", "1024", "4096"] {
            assert_eq!(svg.lines().filter(|line| *line == tick).count(), 1, "{tick}: {svg}");
        }
        let many: Vec<f64> = (1..=40).map(|n| f64::from(n * n)).collect();
        let log = Log::new(&chart(true, points(&many)), (1.0, 1600.0));
        assert_eq!(log.ticks, [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        assert_eq!([1.0, 40.0, 1600.0].map(|x| log.map(&x, (100, 300))), [100, 200, 300]);
    }

    #[test]
    fn curves_without_points_or_with_a_single_value_are_no_trouble() {
        for log_x in [false, true] {
            for points in [vec![], vec![(0.0, 0.0)], vec![(5.0, 5.0)], vec![(1.0, 2.0), (1.0, 2.0)]] {
                assert!(drawn(&[chart(log_x, points)]).contains("</svg>"));
            }
        }
        assert!(drawn(&[]).contains("</svg>"));
    }
}
