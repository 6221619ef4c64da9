//! Stop strings: they end a text, and are no part of it, wherever the borders of tokens fall.

/// Passes text on, except for a stop string and what could become one.
#[derive(Clone, Debug)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
}

/// What a piece of text brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Text that is certain to be before any stop string.
    pub text: String,
    /// A stop string came: the text is at its end.
    pub stopped: bool,
}

impl StopStrings {
    /// Looks for these; empty ones are ignored.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        Self { stops: stops.into_iter().filter(|s| !s.is_empty()).collect(), held: String::new() }
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Passed {
        self.held.push_str(text);
        // The first to be complete, of those the longest: what came token by token and what came at once end alike.
        let ends = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str()).map(|at| (at + stop.len(), at)));
        if let Some((_, at)) = ends.min() {
            self.held.truncate(at);
            return Passed { text: std::mem::take(&mut self.held), stopped: true };
        }
        let hold = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - hold);
        Passed { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// What was held back, once nothing more comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest end of `text` that is a beginning of `stop`, and not all of it.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|&n| text.as_bytes()[text.len() - n..] == stop.as_bytes()[..n]).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut strings = StopStrings::new(stops.iter().map(|s| s.to_string()));
        let mut out = Vec::new();
        for piece in pieces {
            let passed = strings.push(piece);
            out.push(passed.text);
            if passed.stopped {
                return (out, true);
            }
        }
        out.push(strings.finish());
        (out, false)
    }

    #[test]
    fn held_back_and_released() {
        type Texts = &'static [&'static str];
        // Stop strings, pieces, what each piece lets through, whether a stop string came.
        let cases: &[(Texts, Texts, Texts, bool)] = &[
            (&[], &["a", "b"], &["a", "b", ""], false),
            (&["END"], &["aE", "N", "D b"], &["a", "", ""], true),
            (&["END"], &["aE", "x"], &["a", "Ex", ""], false),
            (&["END"], &["EN", "EN", "D"], &["", "EN", ""], true),
            (&["END"], &["aEN"], &["a", "EN"], false),
            (&["\n\n", "\nU:"], &["x\n", "U", ":"], &["x", "", ""], true),
            (&["é!"], &["aé", "?"], &["a", "é?", ""], false),
            (&["b", "abc"], &["abc"], &["a"], true),
            (&[""], &["a"], &["a", ""], false),
        ];
        for (stops, pieces, expected, stopped) in cases {
            let (out, found) = run(stops, pieces);
            assert_eq!(
                (out.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), found),
                (*expected, *stopped),
                "{stops:?} {pieces:?}"
            );
        }
    }

    proptest! {
        /// The border of pieces changes nothing.
        #[test]
        fn pieces_equal_the_whole(text in "[abé]{0,20}", stops in proptest::collection::vec("[abé]{1,4}", 0..3), cuts in proptest::collection::vec(0usize..20, 0..5)) {
            let chars: Vec<char> = text.chars().collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(chars.len())).collect();
            cuts.extend([0, chars.len()]);
            cuts.sort_unstable();
            let pieces: Vec<String> = cuts.windows(2).map(|w| chars[w[0]..w[1]].iter().collect()).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (out, stopped) = run(&stops, &pieces.iter().map(String::as_str).collect::<Vec<_>>());
            // The first stop string to be complete ends the text.
            let end = (0..=text.len()).filter(|&i| text.is_char_boundary(i)).find(|&i| stops.iter().any(|s| text[..i].ends_with(s)));
            prop_assert_eq!(stopped, end.is_some());
            let kept = end.map_or(text.as_str(), |end| {
                let longest = stops.iter().filter(|s| text[..end].ends_with(**s)).map(|s| s.len()).max();
                &text[..end - longest.unwrap_or(0)]
            });
            prop_assert_eq!(out.concat(), kept);
        }
    }
}
