//! The blocks of a page in Markdown.

/// A block between fences.
#[derive(Debug, Clone)]
pub(super) struct Block {
    page: String,
    line: usize,
    pub(super) language: String,
    pub(super) text: String,
    /// Why it is not run, where a comment above it says so.
    pub(super) not_run: Option<String>,
}

impl Block {
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }

    /// Whether it is in this language and is run or read.
    pub(super) fn runs(&self, language: &str) -> bool {
        self.language == language && self.not_run.is_none()
    }
}

/// The blocks of the page, in order.
pub(super) fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let (mut above, mut lines) = ("", text.lines().zip(1..));
    while let Some((line, number)) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            if !line.trim().is_empty() {
                above = line.trim();
            }
            continue;
        };
        let not_run = above.strip_prefix("<!-- not run:").and_then(|rest| rest.strip_suffix("-->"));
        let text: Vec<&str> = lines.by_ref().map(|(line, _)| line).take_while(|line| line.trim() != "```").collect();
        found.push(Block {
            page: page.to_owned(),
            line: number,
            language: language.trim().to_owned(),
            text: text.join("\n"),
            not_run: not_run.map(|why| why.trim().to_owned()),
        });
        above = "";
    }
    found
}

#[test]
fn a_comment_above_a_block_says_why_it_is_not_run() {
    let found = blocks("p.md", "# p\n\n<!-- not run: needs AWS -->\n```sh\nls\n```\n\n```sql\nSELECT 1\n```\n");
    assert_eq!((found[0].not_run.as_deref(), found[0].place().as_str()), (Some("needs AWS"), "p.md:4"));
    assert_eq!((found[1].not_run.as_deref(), found[1].text.as_str()), (None, "SELECT 1"));
}
