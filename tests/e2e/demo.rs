//! The main job: `tarn demo` on the flights of 2013, twice, and its page in a real browser.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::lake::program;

/// Runs the demo from scratch; what it printed.
fn run(directory: &Path) -> String {
    let output = Command::new(program("tarn"))
        .args(["demo", "--directory"])
        .arg(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

pub(crate) fn browser() -> PathBuf {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|file| file.is_file())
        .expect("a headless Chromium: `make setup` installs it")
}

#[test]
fn the_demo_reconciles_finds_the_blizzard_and_gives_the_same_answers_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let printed = run(&first);
    run(&second);

    let answers = |directory: &Path| std::fs::read_to_string(directory.join("answers.json")).unwrap();
    assert_eq!(answers(&first), answers(&second), "a second run from scratch gives the same answers");
    let answers: Value = serde_json::from_str(&answers(&first)).unwrap();
    let text = answers.to_string();
    assert!(printed.contains("336,776") || printed.contains("336776"), "{printed}");
    assert!(
        text.contains("2013-02-08") || text.contains("2013-02-09"),
        "the blizzard of February 2013 is an anomaly: {text}"
    );

    page_draws_its_charts(&first);
}

/// Opens the page in Chromium and looks for marks that were drawn: with a place and a size on the page.
fn page_draws_its_charts(directory: &Path) {
    let page = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "html"))
        .expect("the demo wrote a page");
    let html = std::fs::read_to_string(&page).unwrap();
    for outside in ["src=\"http", "href=\"http", "url(http", "@import"] {
        assert!(!html.contains(outside), "the page is self-contained, found `{outside}`");
    }
    let probe = r#"<script>addEventListener("load", () => {
        const drawn = [...document.querySelectorAll("svg path, svg rect, svg circle, svg line, svg polyline, svg polygon")]
            .filter(mark => { const box = mark.getBoundingClientRect(); return box.width + box.height > 1; });
        const charts = new Set(drawn.map(mark => mark.closest("svg")));
        const wide = [...charts].filter(chart => chart.getBoundingClientRect().width > 200);
        document.title = `marks=${drawn.length} charts=${wide.length} height=${document.body.scrollHeight}`;
    });</script>"#;
    let probed = directory.join("probed.html");
    std::fs::write(&probed, html.replace("</body>", &format!("{probe}</body>"))).unwrap();
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser())
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--virtual-time-budget=10000",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", probed.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let title = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next()).unwrap_or_default();
    let figure = |name: &str| -> u32 {
        let text = title.split_whitespace().find_map(|word| word.strip_prefix(&format!("{name}=")));
        text.and_then(|t| t.parse().ok()).unwrap_or_else(|| panic!("expected `{name}=` in the title, found `{title}`"))
    };
    assert!(figure("charts") >= 3, "{title}");
    assert!(figure("marks") >= 100, "{title}");
}
