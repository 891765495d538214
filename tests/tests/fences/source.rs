//! Rust source as the fences see it: without comments, literals and test code, imports written out.

/// The code of one file, line by line.
#[derive(Debug)]
pub(crate) struct Source {
    code: String,
    lines: usize,
    test_modules: Vec<String>,
}

impl Source {
    /// Reads the text of a file.
    pub(crate) fn new(text: &str) -> Self {
        let (code, test_modules, test_lines) = without_tests(&without_comments(text));
        Self { code: expand_imports(&code), lines: text.lines().count() - test_lines, test_modules }
    }

    /// Lines of the file, test code not counted.
    pub(crate) fn len(&self) -> usize {
        self.lines
    }

    /// Code by line number; comments and literals are blank.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Modules that are declared under `#[cfg(test)]` and lie in files of their own.
    pub(crate) fn test_modules(&self) -> &[String] {
        &self.test_modules
    }

    /// Line, name and number of lines of every function with a body.
    pub(crate) fn functions(&self) -> Vec<(usize, String, usize)> {
        let mut functions = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            let is_word = !self.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let name: String =
                self.code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(end) = end_of_item(&self.code, at).filter(|_| is_word && !name.is_empty()) else {
                continue;
            };
            if self.code[..end].ends_with('}') {
                let line = self.code[..at].matches('\n').count() + 1;
                functions.push((line, name, self.code[at..end].matches('\n').count() + 1));
            }
        }
        functions
    }
}

/// Replaces comments and the insides of literals by blanks. Lines stay where they are.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (len, keep) = match c {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), 0),
            '/' if rest.starts_with("/*") => (block_comment(rest), 0),
            '"' => (string(rest), 1),
            'r' if raw_string(rest).is_some()
                && !out.ends_with(|c: char| c.is_alphanumeric() && c != 'b') =>
            {
                (raw_string(rest).unwrap_or(1), 1)
            }
            '\'' => (char_literal(rest), 1),
            _ => (c.len_utf8(), c.len_utf8()),
        };
        out.push_str(&rest[..keep]);
        out.extend(rest[keep..len].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[len..];
    }
    out
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + body.find(&end).map_or(body.len(), |at| at + end.len()))
}

/// The length of a character literal; 1 for the quote of a lifetime.
fn char_literal(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => text[3..].find('\'').map_or(1, |at| at + 4),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// Blanks out what stands under `#[cfg(test)]`. Also returns the modules that are declared so, and the lines blanked.
fn without_tests(code: &str) -> (String, Vec<String>, usize) {
    const MARK: &str = "#[cfg(test)]";
    let (mut out, mut modules, mut lines, mut rest) = (String::new(), Vec::new(), 0, code);
    while let Some(at) = rest.find(MARK) {
        let end = end_of_item(rest, at + MARK.len()).unwrap_or(rest.len());
        let item = &rest[at + MARK.len()..end];
        if let Some((_, name)) = item.strip_suffix(';').and_then(|item| item.rsplit_once("mod ")) {
            modules.push(name.trim().to_owned());
        }
        lines += rest[at..end].matches('\n').count() + 1;
        out.push_str(&rest[..at]);
        out.extend(rest[at..end].chars().filter(|c| *c == '\n'));
        rest = &rest[end..];
    }
    out.push_str(rest);
    (out, modules, lines)
}

/// Where the item ends that begins at `start`: after its `;`, or after its closing brace.
fn end_of_item(code: &str, start: usize) -> Option<usize> {
    let (mut brackets, mut braces) = (0_i32, 0_i32);
    for (at, c) in code[start..].char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 && brackets == 0 {
                    return Some(start + at + 1);
                }
            }
            ';' if braces == 0 && brackets == 0 => return Some(start + at + 1),
            _ => {}
        }
    }
    None
}

/// Writes grouped imports out, one path after the other on the line of their `use`.
fn expand_imports(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = find_use(rest) {
        let end = rest[at..].find(';').map_or(rest.len(), |end| at + end);
        out.push_str(&rest[..at]);
        let tree: String = rest[at + 4..end].split_whitespace().collect::<Vec<_>>().join(" ");
        let mut paths = Vec::new();
        expand("", &tree, &mut paths);
        out.push_str(&paths.iter().map(|path| format!("use {path};")).collect::<Vec<_>>().join(" "));
        out.extend(rest[at..end].chars().filter(|c| *c == '\n'));
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

fn find_use(code: &str) -> Option<usize> {
    let starts_item = |at: usize| code[..at].chars().next_back().is_none_or(|c| c.is_whitespace());
    code.match_indices("use ").map(|(at, _)| at).find(|at| starts_item(*at))
}

fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        if !tree.is_empty() {
            paths.push(format!("{prefix}{tree}"));
        }
        return;
    };
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    let (mut depth, mut start) = (0, 0);
    let prefix = format!("{prefix}{}", head.trim());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, &group[start..at], paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    expand(&prefix, &group[start..], paths);
}
