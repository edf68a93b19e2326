//! The comparison of two texts, for people.

/// The difference of two texts line by line: `-` marks an expected line that is missing, `+` a line
/// that was not expected.
pub(crate) fn diff(expected: &str, actual: &str) -> String {
    let old: Vec<_> = expected.lines().collect();
    let new: Vec<_> = actual.lines().collect();
    let common = common_lengths(&old, &new);
    let mut i = 0;
    let mut j = 0;
    let mut out = String::from("  (- expected, + actual)\n");
    let mut line = |mark: char, text: &str| {
        out.push(mark);
        out.push(' ');
        out.push_str(text);
        out.push('\n');
    };
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            line(' ', old[i]);
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            line('-', old[i]);
            i += 1;
        } else {
            line('+', new[j]);
            j += 1;
        }
    }
    out
}

/// The number of lines that each pair of suffixes has in common, in order.
fn common_lengths(old: &[&str], new: &[&str]) -> Vec<Vec<usize>> {
    let mut common = vec![vec![0; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::diff;

    #[test]
    fn equal_lines_stay_and_others_are_marked() {
        let out = diff("a\nb\nc", "a\nx\nc\nd");
        assert_eq!(out, "  (- expected, + actual)\n  a\n- b\n+ x\n  c\n+ d\n");
    }
}
