//! The plots, as SVG.
//!
//! Their colours are those of the page's light theme; the style sheet replaces
//! them in the dark one by matching the attributes.

use std::fmt::Display;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use walsh_runtime::{Error, Result};

use crate::axis::Axis;
use crate::html::{shortened, text_cells, visible};
use crate::labels::{LEADER, Labelled, Rect, Surroundings, distance, place};
use crate::points::{Kind, Point, pareto_front};

/// A drawn plot and what is said about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plot {
    /// Unique on the page.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// How to read it.
    pub(crate) reading: &'static str,
    /// The figures, for those who do not see them.
    pub(crate) description: String,
    pub(crate) svg: String,
    /// Points whose label found no room.
    pub(crate) unlabelled: usize,
}

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Pixel = (i32, i32);

const WIDTH: u32 = 800;
const HEIGHT: u32 = 460;
const INK: RGBColor = RGBColor(0x1F, 0x29, 0x33);
const MUTED: RGBColor = RGBColor(0x5B, 0x67, 0x70);
const GRID: RGBColor = RGBColor(0xE3, 0xE7, 0xEB);
/// Labels, in pixels; the widest of the common monospaced fonts has 0.61.
const LABEL_SIZE: f64 = 12.0;
const CELL: f64 = 0.61 * LABEL_SIZE;
const LABEL_HEIGHT: f64 = 16.0;
const LONGEST_LABEL: usize = 34;

fn colour(kind: Kind) -> RGBColor {
    match kind {
        Kind::Walsh => RGBColor(0x0B, 0x6B, 0xCB),
        Kind::Ggml => RGBColor(0xB4, 0x53, 0x09),
        Kind::Engine => RGBColor(0x7A, 0x4F, 0xB5),
    }
}

/// Mean divergence against bits per value; `None` when there is no point.
pub(crate) fn divergence(points: &[Point]) -> Result<Option<Plot>> {
    scatter(
        points,
        &Scatter {
            id: "divergence",
            title: "Mean KL divergence against bits per value",
            reading: "Lower and further left is better.",
            measure: |point| Some(point.kld),
            loss: |kld| kld,
            axis: |values| Axis::log("mean KL divergence in nats (log scale)", values),
        },
    )
}

/// Agreement on the likeliest token against bits per value.
pub(crate) fn same_top(points: &[Point]) -> Result<Option<Plot>> {
    scatter(
        points,
        &Scatter {
            id: "same-top",
            title: "Same likeliest token against bits per value",
            reading: "Higher and further left is better.",
            measure: |point| point.same_top.map(|share| 100.0 * share),
            loss: |share| -share,
            axis: |values| {
                Axis::linear("positions with the same likeliest token, in %", values).up_to(100.0)
            },
        },
    )
}

/// What a scatter plot shows against bits per value.
struct Scatter {
    id: &'static str,
    title: &'static str,
    reading: &'static str,
    measure: fn(&Point) -> Option<f64>,
    /// Smaller is better.
    loss: fn(f64) -> f64,
    axis: fn(&mut dyn Iterator<Item = f64>) -> Axis,
}

fn scatter(points: &[Point], what: &Scatter) -> Result<Option<Plot>> {
    let measured: Vec<(&Point, f64)> = points
        .iter()
        .filter_map(|point| (what.measure)(point).map(|value| (point, value)))
        .collect();
    if measured.is_empty() {
        return Ok(None);
    }
    let front: Vec<usize> = {
        let points: Vec<Point> = measured.iter().map(|(point, _)| (*point).clone()).collect();
        pareto_front(&points, |point| (what.measure)(point).map(what.loss))
    };
    let axes = (
        Axis::linear(
            "bits per value, scales included",
            measured.iter().map(|(point, _)| point.bits),
        ),
        (what.axis)(&mut measured.iter().map(|&(_, value)| value)),
    );
    let mut svg = String::new();
    let canvas = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
    let unlabelled = draw_scatter(&canvas, &axes, (&measured, &front))?;
    canvas.present().map_err(cannot_draw)?;
    drop(canvas);
    let names: Vec<String> = measured
        .iter()
        .map(|(point, value)| {
            let value = three_digits(*value);
            format!("{} at {:.2} bits: {value}", point.name, point.bits)
        })
        .collect();
    Ok(Some(Plot {
        id: what.id,
        title: what.title,
        reading: what.reading,
        description: names.join("; "),
        svg,
        unlabelled,
    }))
}

/// Draws everything and says how many labels found no room.
fn draw_scatter(
    canvas: &Canvas<'_>,
    (x, y): &(Axis, Axis),
    (measured, front): (&[(&Point, f64)], &[usize]),
) -> Result<usize> {
    let chart = ChartBuilder::on(canvas)
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(66)
        .build_cartesian_2d(x.clone(), y.clone())
        .and_then(|mut chart| {
            chart
                .configure_mesh()
                .bold_line_style(GRID)
                .light_line_style(TRANSPARENT)
                .axis_style(MUTED)
                .label_style(font("sans-serif", 12.0).color(&MUTED))
                .axis_desc_style(font("sans-serif", 13.0).color(&INK))
                .x_label_formatter(&|tick| x.label(*tick))
                .y_label_formatter(&|tick| y.label(*tick))
                .x_desc(x.title)
                .y_desc(y.title)
                .draw()
                .map(|()| chart)
        })
        .map_err(cannot_draw)?;
    let spots: Vec<Pixel> = measured
        .iter()
        .map(|(point, value)| chart.backend_coord(&(point.bits, y.coordinate(*value))))
        .collect();
    let (columns, rows) = chart.plotting_area().get_pixel_range();
    let baseline = measured.iter().position(|(point, _)| {
        // What all else is said to be relative to.
        point.kind == Kind::Ggml && point.name == "q4_0"
    });
    let mut lines = Vec::new();
    if let Some(index) = baseline {
        let ends = [columns.start, columns.end].map(|column| (column, spots[index].1));
        let style = colour(Kind::Ggml).mix(0.5);
        canvas
            .draw(&PathElement::new(ends, style))
            .map_err(cannot_draw)?;
        lines.push((exact(ends[0]), exact(ends[1])));
    }
    let line: Vec<Pixel> = front.iter().map(|&index| spots[index]).collect();
    if line.len() > 1 {
        let style = colour(Kind::Walsh).mix(0.6).stroke_width(2);
        canvas
            .draw(&PathElement::new(line.clone(), style))
            .map_err(cannot_draw)?;
    }
    let texts: Vec<String> = measured.iter().map(|(point, _)| label(point)).collect();
    let wanted: Vec<Labelled> = spots
        .iter()
        .zip(&texts)
        .map(|(&at, text)| Labelled {
            at: exact(at),
            width: text_cells(text) as f64 * CELL + 4.0,
        })
        .collect();
    lines.extend(line.windows(2).map(|ends| (exact(ends[0]), exact(ends[1]))));
    let places = place(
        &wanted,
        Surroundings {
            frame: Rect {
                left: f64::from(columns.start) + 2.0,
                top: f64::from(rows.start),
                right: f64::from(columns.end) - 2.0,
                bottom: f64::from(rows.end) - 2.0,
            },
            height: LABEL_HEIGHT,
            lines: &lines,
        },
    );
    for (labelled, place) in wanted.iter().zip(&places) {
        draw_leader(canvas, labelled.at, place.as_ref())?;
    }
    for (index, (point, _)) in measured.iter().enumerate() {
        draw_marker(canvas, spots[index], point.kind)?;
        if let Some(place) = &places[index] {
            let at = (place.left + 2.0, (place.top + place.bottom) / 2.0);
            draw_label(canvas, &texts[index], (pixel(at), HPos::Left))?;
        }
    }
    Ok(places.iter().filter(|place| place.is_none()).count())
}

/// From the mean to the 99th percentile, a row for each cache.
pub(crate) fn spread(points: &[Point]) -> Result<Option<Plot>> {
    let mut rows: Vec<(&Point, f64)> = points
        .iter()
        .filter_map(|point| point.kld_p99.map(|p99| (point, p99)))
        .filter(|&(_, p99)| p99 > 0.0)
        .collect();
    if rows.is_empty() {
        return Ok(None);
    }
    rows.sort_by(|a, b| a.0.kld.total_cmp(&b.0.kld));
    let values = rows.iter().flat_map(|(point, p99)| [point.kld, *p99]);
    let axis = Axis::log("KL divergence in nats (log scale)", values);
    let mut svg = String::new();
    let height = 26 * rows.len() as u32 + 74;
    let canvas = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
    draw_spread(&canvas, &axis, &rows)?;
    canvas.present().map_err(cannot_draw)?;
    drop(canvas);
    let names: Vec<String> = rows
        .iter()
        .map(|(point, p99)| {
            let (mean, p99) = (three_digits(point.kld), three_digits(*p99));
            format!("{}: {mean} to {p99}", point.name)
        })
        .collect();
    Ok(Some(Plot {
        id: "spread",
        title: "KL divergence, mean to 99th percentile",
        reading: "The mark is the mean; 99 of 100 positions stay below the end of the bar.",
        description: names.join("; "),
        svg,
        unlabelled: 0,
    }))
}

fn draw_spread(canvas: &Canvas<'_>, axis: &Axis, rows: &[(&Point, f64)]) -> Result<()> {
    let texts: Vec<String> = rows.iter().map(|(point, _)| label(point)).collect();
    let widest = texts.iter().map(|text| text_cells(text)).max().unwrap_or(0);
    let gutter = (widest as f64 * CELL + 14.0) as u32;
    let count = rows.len() as f64;
    let chart = ChartBuilder::on(canvas)
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(gutter)
        .build_cartesian_2d(axis.clone(), 0.0..count)
        .and_then(|mut chart| {
            chart
                .configure_mesh()
                .disable_y_mesh()
                .disable_y_axis()
                .bold_line_style(GRID)
                .light_line_style(TRANSPARENT)
                .axis_style(MUTED)
                .label_style(font("sans-serif", 12.0).color(&MUTED))
                .axis_desc_style(font("sans-serif", 13.0).color(&INK))
                .x_label_formatter(&|tick| axis.label(*tick))
                .x_desc(axis.title)
                .draw()
                .map(|()| chart)
        })
        .map_err(cannot_draw)?;
    let left = chart.plotting_area().get_pixel_range().0.start;
    for (index, (point, p99)) in rows.iter().enumerate() {
        let row = count - index as f64 - 0.5;
        let [mean, end] =
            [point.kld, *p99].map(|x| chart.backend_coord(&(axis.coordinate(x), row)));
        let style = colour(point.kind).mix(0.35).stroke_width(6);
        canvas
            .draw(&PathElement::new([mean, end], style))
            .map_err(cannot_draw)?;
        let cap = [(end.0, end.1 - 7), (end.0, end.1 + 7)];
        let style = colour(point.kind).stroke_width(2);
        canvas
            .draw(&PathElement::new(cap, style))
            .map_err(cannot_draw)?;
        draw_marker(canvas, mean, point.kind)?;
        draw_label(canvas, &texts[index], ((left - 10, mean.1), HPos::Right))?;
    }
    Ok(())
}

/// A font of so many pixels: the SVG backend divides sizes by 1.24.
fn font(family: &'static str, pixels: f64) -> FontDesc<'static> {
    (family, 1.24 * pixels).into_font()
}

fn cannot_draw(error: impl Display) -> Error {
    Error::Measure {
        what: format!("cannot draw a plot of the report: {error}"),
    }
}

fn label(point: &Point) -> String {
    shortened(&visible(&point.name), LONGEST_LABEL)
}

fn exact((x, y): Pixel) -> (f64, f64) {
    (f64::from(x), f64::from(y))
}

fn pixel((x, y): (f64, f64)) -> Pixel {
    (x.round() as i32, y.round() as i32)
}

/// A circle, a diamond or a triangle.
fn draw_marker(canvas: &Canvas<'_>, at: Pixel, kind: Kind) -> Result<()> {
    let style = colour(kind).filled();
    let corners: &[Pixel] = match kind {
        Kind::Walsh => {
            return canvas.draw(&Circle::new(at, 5, style)).map_err(cannot_draw);
        }
        Kind::Ggml => &[(0, -6), (6, 0), (0, 6), (-6, 0)],
        Kind::Engine => &[(0, -6), (6, 5), (-6, 5)],
    };
    let corners: Vec<Pixel> = corners.iter().map(|d| (at.0 + d.0, at.1 + d.1)).collect();
    canvas
        .draw(&Polygon::new(corners, style))
        .map_err(cannot_draw)
}

/// A line from a point to a label that is not right beside it.
fn draw_leader(canvas: &Canvas<'_>, at: (f64, f64), place: Option<&Rect>) -> Result<()> {
    match place {
        Some(place) if distance(at, place) > LEADER => {
            let ends = [pixel(at), pixel(place.nearest(at))];
            let style = MUTED.mix(0.6);
            canvas
                .draw(&PathElement::new(ends, style))
                .map_err(cannot_draw)
        }
        _ => Ok(()),
    }
}

fn draw_label(canvas: &Canvas<'_>, text: &str, (at, side): (Pixel, HPos)) -> Result<()> {
    let style = font("monospace", LABEL_SIZE)
        .color(&INK)
        .pos(Pos::new(side, VPos::Center));
    canvas
        .draw(&Text::new(text.to_owned(), at, style))
        .map_err(cannot_draw)
}

/// A figure with three digits that count, without an exponent where it is short.
pub(crate) fn three_digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let decade = value.abs().log10().floor();
    if (-4.0..6.0).contains(&decade) {
        let decimals = (2.0 - decade).max(0.0) as usize;
        format!("{value:.decimals$}")
    } else {
        format!("{value:.2e}")
    }
}
