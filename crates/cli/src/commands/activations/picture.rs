//! A picture of one layer: the largest value of each channel of its four inputs, as they are, smoothed and rotated.

use super::{errors, largest, outlier_share, readers};
use quant_runtime::layerwise::InputReport;
use std::fmt::Write;

/// Of the plots, without their margins.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 70.0;
/// From one plot to the next.
const STEP: f64 = 225.0;
/// Points of a line, at most: a wide input shows the largest of several channels at each.
const POINTS: usize = 450;

const LINES: [(&str, &str); 3] = [("as it is", "#c0392b"), ("smoothed", "#2471a3"), ("rotated", "#1e8449")];

pub(super) fn of_layer(number: usize, inputs: &[InputReport]) -> String {
    let (width, height) = (LEFT + WIDTH + 20.0, TOP + STEP * inputs.len() as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    text(&mut svg, LEFT, 24.0, "#000", "font-size=\"16\"", &format!("Layer {number}: largest value of each channel"));
    for (i, (name, colour)) in LINES.iter().enumerate() {
        let x = LEFT + 420.0 + 130.0 * i as f64;
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"20\" x2=\"{}\" y2=\"20\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            x + 24.0
        );
        text(&mut svg, x + 30.0, 24.0, colour, "", name);
    }
    for (i, input) in inputs.iter().enumerate() {
        plot(&mut svg, TOP + STEP * i as f64, input);
    }
    svg.push_str("</svg>\n");
    svg
}

/// One plot, with a logarithmic axis.
fn plot(svg: &mut String, top: f64, input: &InputReport) {
    let lines = [&input.profile.abs_max, &input.smoothed_max, &input.rotated.abs_max].map(|v| binned(v));
    let positive = || lines.iter().flatten().copied().filter(|v| *v > 0.0 && v.is_finite());
    let high = positive().fold(f32::MIN_POSITIVE, f32::max).log10().ceil();
    // Five decades at the most; channels that are hardly used lie on the lower edge.
    let low = positive().fold(f32::MAX, f32::min).log10().floor().clamp(high - 5.0, high - 1.0);
    let y = |value: f32| {
        let share = (value.max(f32::MIN_POSITIVE).log10() - low) / (high - low);
        top + HEIGHT * (1.0 - f64::from(share.clamp(0.0, 1.0)))
    };

    let channels = input.profile.abs_max.len();
    let shape = format!(
        "{}: {channels} channels, largest {:.1}, outliers {:.2} %, kurtosis {:.1} (rotated {:.1})",
        readers(input.site),
        largest(&input.profile.abs_max),
        100.0 * outlier_share(input),
        input.profile.kurtosis,
        input.rotated.kurtosis,
    );
    text(svg, LEFT, top - 22.0, "#000", "font-weight=\"bold\"", &shape);
    let of_scheme = |(name, error): (&str, f64)| format!("{} {:.2} %", name.replace('_', " "), 100.0 * error);
    let line = errors(&input.errors).map(of_scheme).join(", ");
    text(svg, LEFT, top - 7.0, "#555", "", &format!("error of the outputs: {line}; strength {:.2}", input.strength));

    let _ = writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#999\"/>"
    );
    for exponent in low as i32..=high as i32 {
        let value = 10f32.powi(exponent);
        let y = y(value);
        let (x, right) = (LEFT - 6.0, LEFT + WIDTH);
        let _ = writeln!(svg, "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>");
        text(svg, x, y + 4.0, "#555", "text-anchor=\"end\"", &value.to_string());
    }
    for quarter in 0..=4 {
        let x = LEFT + WIDTH * f64::from(quarter) / 4.0;
        let channel = channels * quarter as usize / 4;
        text(svg, x, top + HEIGHT + 15.0, "#555", "text-anchor=\"middle\"", &channel.to_string());
    }
    for (line, (_, colour)) in lines.iter().zip(LINES) {
        let step = WIDTH / line.len().max(1) as f64;
        let _ = write!(svg, "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1\" points=\"");
        for (i, &value) in line.iter().enumerate() {
            let _ = write!(svg, "{:.1},{:.1} ", LEFT + step * (i as f64 + 0.5), y(value));
        }
        svg.push_str("\"/>\n");
    }
}

/// The largest values of as many runs of channels as there are points.
fn binned(values: &[f32]) -> Vec<f32> {
    values.chunks(values.len().div_ceil(POINTS).max(1)).map(largest).collect()
}

fn text(svg: &mut String, x: f64, y: f64, colour: &str, style: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y:.1}\" fill=\"{colour}\" {style}>{content}</text>");
}
