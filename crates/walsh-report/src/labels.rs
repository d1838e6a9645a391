//! Where the labels of a plot's points go: beside their points, over nothing else.

/// A rectangle, y downwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rect {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) right: f64,
    pub(crate) bottom: f64,
}

type Spot = (f64, f64);

impl Rect {
    fn around((x, y): Spot, width: f64, height: f64) -> Self {
        Self {
            left: x - width / 2.0,
            top: y - height / 2.0,
            right: x + width / 2.0,
            bottom: y + height / 2.0,
        }
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }

    fn is_within(&self, outer: &Self) -> bool {
        self.left >= outer.left
            && self.right <= outer.right
            && self.top >= outer.top
            && self.bottom <= outer.bottom
    }

    /// The point of the rectangle that is nearest to `spot`.
    pub(crate) fn nearest(&self, (x, y): Spot) -> Spot {
        (
            x.clamp(self.left, self.right),
            y.clamp(self.top, self.bottom),
        )
    }

    /// Whether the straight line between two spots passes through it, by clipping
    /// the line to one side after another.
    fn is_crossed(&self, (x0, y0): Spot, (x1, y1): Spot) -> bool {
        let (dx, dy) = (x1 - x0, y1 - y0);
        let (mut enter, mut leave) = (0.0f64, 1.0f64);
        for (step, room) in [
            (-dx, x0 - self.left),
            (dx, self.right - x0),
            (-dy, y0 - self.top),
            (dy, self.bottom - y0),
        ] {
            if step == 0.0 {
                if room <= 0.0 {
                    return false;
                }
            } else if step < 0.0 {
                enter = enter.max(room / step);
            } else {
                leave = leave.min(room / step);
            }
        }
        enter < leave
    }
}

/// A point that wants a label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Labelled {
    pub(crate) at: Spot,
    /// The label's width; all have the same height.
    pub(crate) width: f64,
}

/// What labels keep clear of, and how high they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) frame: Rect,
    pub(crate) height: f64,
    /// The lines of the plot, piece by piece: crossed where nothing better is.
    pub(crate) lines: &'a [(Spot, Spot)],
}

/// How far a marker reaches.
const MARKER: f64 = 7.0;
/// A label further away than this is tied to its point by a leader.
pub(crate) const LEADER: f64 = 16.0;
/// What crossing a line is worth, in pixels of distance.
const CROSSING: f64 = 30.0;
const DIRECTIONS: usize = 24;

/// A place for each label, in order, that overlaps no other label and no marker
/// and lies within the frame; `None` where there is no room left.
pub(crate) fn place(points: &[Labelled], around: Surroundings<'_>) -> Vec<Option<Rect>> {
    let markers: Vec<Rect> = points
        .iter()
        .map(|point| Rect::around(point.at, 2.0 * MARKER, 2.0 * MARKER))
        .collect();
    let mut search = Search {
        around,
        markers,
        placed: Vec::with_capacity(points.len()),
    };
    for point in points {
        // Where no place keeps off the leaders, one that crosses them is better
        // than none.
        let place = search
            .best(point, Leaders::KeptClear)
            .or_else(|| search.best(point, Leaders::Crossed));
        search.placed.push(place.map(|rect| (point.at, rect)));
    }
    let rect = |place: Option<(Spot, Rect)>| place.map(|(_, rect)| rect);
    search.placed.into_iter().map(rect).collect()
}

/// Whether labels and leaders may cross each other.
#[derive(Clone, Copy, PartialEq)]
enum Leaders {
    KeptClear,
    Crossed,
}

struct Search<'a> {
    around: Surroundings<'a>,
    markers: Vec<Rect>,
    placed: Vec<Option<(Spot, Rect)>>,
}

impl Search<'_> {
    fn best(&self, point: &Labelled, leaders: Leaders) -> Option<Rect> {
        let frame = &self.around.frame;
        let reach = (frame.right - frame.left).max(frame.bottom - frame.top);
        let mut best: Option<(f64, Rect)> = None;
        let mut gap = MARKER + 1.0;
        while gap < reach {
            // Nothing further away can cost less.
            if best.is_some_and(|(cost, _)| cost <= gap) {
                break;
            }
            for direction in directions() {
                let rect = self.candidate(point, gap, direction);
                if self.is_free(&rect)
                    && (leaders == Leaders::Crossed || self.is_clear(point.at, &rect))
                {
                    let cost = gap + self.crossings(&rect);
                    if best.is_none_or(|(least, _)| cost < least) {
                        best = Some((cost, rect));
                    }
                }
            }
            gap *= 1.25;
        }
        best.map(|(_, rect)| rect)
    }

    /// The label whose edge is `gap` away from its point in some direction; the
    /// first one is to the right.
    fn candidate(&self, point: &Labelled, gap: f64, direction: usize) -> Rect {
        let angle = direction as f64 / DIRECTIONS as f64 * std::f64::consts::TAU;
        let (sin, cos) = (angle.sin(), angle.cos());
        let height = self.around.height;
        // Saturated, so that whole ranges of directions lie straight beside and
        // straight above the point.
        let side = |x: f64| (1.5 * x).clamp(-1.0, 1.0);
        let centre = (
            point.at.0 + gap * cos + side(cos) * point.width / 2.0,
            point.at.1 + gap * sin + side(sin) * height / 2.0,
        );
        Rect::around(centre, point.width, height)
    }

    /// Whether it lies within the frame and over nothing else.
    fn is_free(&self, rect: &Rect) -> bool {
        let mut others = self.placed.iter().flatten().map(|(_, other)| other);
        rect.is_within(&self.around.frame)
            && !self.markers.iter().any(|marker| marker.overlaps(rect))
            && !others.any(|other| other.overlaps(rect))
    }

    /// Whether its leader crosses no label and no leader crosses it.
    fn is_clear(&self, at: Spot, rect: &Rect) -> bool {
        let end = rect.nearest(at);
        !self.placed.iter().flatten().any(|(other_at, other)| {
            other.is_crossed(at, end) || rect.is_crossed(*other_at, other.nearest(*other_at))
        })
    }

    /// What it costs to lie on lines.
    fn crossings(&self, rect: &Rect) -> f64 {
        let lines = self.around.lines.iter();
        CROSSING
            * lines
                .filter(|(from, to)| rect.is_crossed(*from, *to))
                .count() as f64
    }
}

/// All directions, the best one first: beside, above, below, then the others.
fn directions() -> impl Iterator<Item = usize> {
    const QUARTER: usize = DIRECTIONS / 4;
    let straight = [0, 2 * QUARTER, 3 * QUARTER, QUARTER];
    let others = (0..DIRECTIONS).filter(|direction| direction % QUARTER != 0);
    straight.into_iter().chain(others)
}

/// From a point to the nearest edge of its label.
pub(crate) fn distance(at: Spot, rect: &Rect) -> f64 {
    let (x, y) = rect.nearest(at);
    (x - at.0).hypot(y - at.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Rect = Rect {
        left: 60.0,
        top: 10.0,
        right: 740.0,
        bottom: 400.0,
    };

    fn around(lines: &[(Spot, Spot)]) -> Surroundings<'_> {
        Surroundings {
            frame: FRAME,
            height: 16.0,
            lines,
        }
    }

    /// Points in a small disc around `centre`, with labels of several widths.
    fn close_points(count: usize, centre: Spot) -> Vec<Labelled> {
        (0..count)
            .map(|i| {
                let (angle, radius) = (i as f64 * 2.4, 3.0 * (i as f64).sqrt());
                Labelled {
                    at: (
                        centre.0 + radius * angle.cos(),
                        centre.1 + radius * angle.sin(),
                    ),
                    width: 30.0 + (i * 37 % 90) as f64,
                }
            })
            .collect()
    }

    #[test]
    fn labels_of_twenty_close_points_overlap_neither_each_other_nor_the_frame() {
        for centre in [(400.0, 200.0), (75.0, 25.0), (725.0, 385.0), (400.0, 12.0)] {
            let points = close_points(20, centre);
            let line: Vec<_> = points
                .windows(2)
                .map(|pair| (pair[0].at, pair[1].at))
                .collect();
            let places = place(&points, around(&line));
            let places: Vec<Rect> = places.into_iter().map(|p| p.expect("room")).collect();
            for (i, rect) in places.iter().enumerate() {
                assert!((rect.right - rect.left - points[i].width).abs() < 1e-9);
                assert!(rect.is_within(&FRAME), "{i}: {rect:?}");
                for (j, other) in places.iter().enumerate().skip(i + 1) {
                    assert!(!rect.overlaps(other), "{i} and {j}: {rect:?} {other:?}");
                }
                for point in &points {
                    let marker = Rect::around(point.at, 10.0, 10.0);
                    assert!(!rect.overlaps(&marker), "{i}: {rect:?}");
                }
            }
        }
    }

    #[test]
    fn a_lone_point_has_its_label_beside_it() {
        let point = Labelled {
            at: (300.0, 200.0),
            width: 50.0,
        };
        let rect = place(&[point], around(&[]))[0].expect("room");
        assert!(distance(point.at, &rect) < LEADER);
        assert!(rect.left > 300.0, "{rect:?}");
        assert!((rect.top + rect.bottom - 400.0).abs() < 1e-9, "{rect:?}");
    }

    #[test]
    fn a_label_keeps_off_the_line_where_it_can() {
        let point = Labelled {
            at: (300.0, 200.0),
            width: 50.0,
        };
        let line = ((300.0, 200.0), (700.0, 200.0));
        let rect = place(&[point], around(&[line]))[0].expect("room");
        assert!(!rect.is_crossed(line.0, line.1), "{rect:?}");
    }

    #[test]
    fn labels_without_room_are_left_out() {
        let mut points = close_points(3, (400.0, 200.0));
        points[1].width = 1000.0;
        let places = place(&points, around(&[]));
        assert!(places[0].is_some() && places[1].is_none() && places[2].is_some());
    }

    #[test]
    fn lines_through_a_rectangle_cross_it() {
        let rect = Rect::around((10.0, 10.0), 10.0, 10.0);
        for (from, to, crosses) in [
            ((0.0, 0.0), (20.0, 20.0), true),
            ((0.0, 10.0), (20.0, 10.0), true),
            ((10.0, 10.0), (11.0, 10.0), true),
            ((0.0, 10.0), (4.0, 10.0), false),
            ((0.0, 5.0), (20.0, 5.0), false),
            ((0.0, 12.0), (12.0, 0.0), true),
            ((0.0, 9.0), (9.0, 0.0), false),
        ] {
            assert_eq!(rect.is_crossed(from, to), crosses, "{from:?} {to:?}");
        }
    }
}
