//! Paths that exist on one machine only, which no file of the repository may name.

use crate::repository::{SourceFile, assert_none, files};

/// In two pieces each, so that this file does not name them either.
const FORBIDDEN: &[[&str; 2]] =
    &[["/wo", "rk/"], ["/ro", "ot/"], ["../sha", "red"], ["../.lib", "rary"]];

fn breaches(files: &[SourceFile]) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in files {
        for (number, line) in (1..).zip(file.text.lines()) {
            for word in FORBIDDEN.iter().map(|pieces| pieces.concat()) {
                if line.contains(&word) {
                    let path = &file.path;
                    breaches.push(format!(
                        "{path}:{number} says `{word}`, which means something on one machine \
                         only: write a path from the workspace's root"
                    ));
                }
            }
        }
    }
    breaches
}

#[test]
fn no_file_names_a_folder_of_one_machine() {
    assert_none(&breaches(&files()));
}

#[test]
fn each_forbidden_word_is_found() {
    for word in FORBIDDEN {
        let text = format!("nothing here\nsee {}notes.md\n", word.concat());
        let found = breaches(&[SourceFile { path: "README.md".into(), text }]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("README.md:2 "), "{found:?}");
    }
    let text = "the framework/library shared by all".into();
    assert_eq!(breaches(&[SourceFile { path: "README.md".into(), text }]), [""; 0]);
}
