//! Cuts what a server sends into the pieces that are parsed one at a time.
//!
//! A page of a list is five megabytes and arrives in hundreds of parts. [`Page`] cuts it into its items as it comes, so
//! that no more than one Node is ever held; [`Lines`] does the same with a watch, which has an object a line.

/// No object in etcd is larger (its `--max-request-bytes` is 1.5 MiB; JSON takes more room than what etcd holds).
const MAX_PIECE_BYTES: usize = 8 << 20;

/// Why what was sent cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PieceError {
    /// It is not JSON of the expected form.
    #[error("the API server sent no list in JSON")]
    Form,
    /// One object is out of all proportion.
    #[error("the API server sent an object of more than {MAX_PIECE_BYTES} bytes")]
    TooLong,
}

/// A piece of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// One of the list's items.
    Item(&'a [u8]),
    /// The list's `metadata`.
    Meta(&'a [u8]),
}

/// Cuts a stream at the ends of lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes the next part of the stream, and hands out each line that ends in it.
    pub(super) fn feed<E: From<PieceError>>(
        &mut self,
        mut part: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(end) = part.iter().position(|b| *b == b'\n') {
            let (line, left) = part.split_at(end);
            part = left.get(1..).unwrap_or_default();
            if self.rest.is_empty() {
                take_line(line, &mut take)?;
            } else {
                self.rest.extend_from_slice(line);
                let whole = std::mem::take(&mut self.rest);
                take_line(&whole, &mut take)?;
                // The buffer is used again.
                self.rest = whole;
                self.rest.clear();
            }
        }
        self.rest.extend_from_slice(part);
        if self.rest.len() > MAX_PIECE_BYTES {
            return Err(PieceError::TooLong.into());
        }
        Ok(())
    }
}

fn take_line<E>(line: &[u8], take: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    take(line)
}

/// Cuts a list, as `{"kind":…,"metadata":{…},"items":[{…},{…}]}`, whatever the order of its members.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Objects and arrays that are open.
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    place: Place,
    has_meta: bool,
    has_items: bool,
    /// The member's name, while it is read and until the next one's.
    name: Vec<u8>,
    /// What is to be handed out, as far as it came.
    piece: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the list's opening brace, or behind its closing one.
    #[default]
    Outside,
    /// Where a member's name is expected, or is being read.
    Name,
    /// Between a name and its value's first letter.
    Colon,
    /// In a value of no interest.
    Skip,
    /// In the list's metadata.
    Meta,
    /// Between items.
    Items,
    /// In an item.
    Item,
}

impl Page {
    /// Takes the next part of the page, and hands out each piece that ends in it.
    pub(super) fn feed<E: From<PieceError>>(
        &mut self,
        part: &[u8],
        mut take: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut left = part;
        while let Some((byte, after)) = left.split_first() {
            if self.in_string && !self.is_escaped {
                // Most of a page is text: run through it.
                let length = left
                    .iter()
                    .position(|b| matches!(b, b'"' | b'\\'))
                    .unwrap_or(left.len());
                if length > 0 {
                    let (text, rest) = left.split_at(length);
                    self.keep(text)?;
                    left = rest;
                    continue;
                }
            }
            left = after;
            self.byte(*byte, &mut take)?;
        }
        Ok(())
    }

    /// Whether a list came, and to its end. Who took anything else for one would believe that there are no Nodes.
    pub(super) fn is_whole(&self) -> bool {
        self.place == Place::Outside && self.depth == 0 && self.has_meta && self.has_items
    }

    fn keep(&mut self, text: &[u8]) -> Result<(), PieceError> {
        let buffer = match self.place {
            Place::Name => &mut self.name,
            Place::Meta | Place::Item => &mut self.piece,
            Place::Outside | Place::Colon | Place::Skip | Place::Items => return Ok(()),
        };
        buffer.extend_from_slice(text);
        if buffer.len() > MAX_PIECE_BYTES {
            return Err(PieceError::TooLong);
        }
        Ok(())
    }

    fn byte<E: From<PieceError>>(
        &mut self,
        byte: u8,
        take: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.in_string {
            self.in_string = self.is_escaped || byte != b'"';
            self.is_escaped = !self.is_escaped && byte == b'\\';
            let ends_name = self.place == Place::Name && !self.in_string;
            if ends_name {
                self.place = Place::Colon;
                self.has_meta |= self.name == b"metadata";
                self.has_items |= self.name == b"items";
                return Ok(());
            }
            return Ok(self.keep(&[byte])?);
        }
        match byte {
            b'"' => self.open_string(),
            b'{' | b'[' => self.open(byte),
            b'}' | b']' => return self.close(byte, take),
            b',' if self.depth == 1 => {
                self.place = Place::Name;
                return Ok(());
            }
            _ => {}
        }
        Ok(self.keep_outside_names(byte)?)
    }

    /// A name's quotes and the space around it are no part of it.
    fn keep_outside_names(&mut self, byte: u8) -> Result<(), PieceError> {
        if self.place == Place::Name {
            return Ok(());
        }
        self.keep(&[byte])
    }

    fn open_string(&mut self) {
        self.in_string = true;
        match self.place {
            Place::Name => self.name.clear(),
            Place::Colon => self.place = Place::Skip,
            Place::Outside | Place::Skip | Place::Meta | Place::Items | Place::Item => {}
        }
    }

    fn open(&mut self, byte: u8) {
        self.depth += 1;
        self.place = match (self.place, byte) {
            (Place::Outside, b'{') if self.depth == 1 => Place::Name,
            (Place::Colon, b'[') if self.name == b"items" => Place::Items,
            (Place::Colon, b'{') if self.name == b"metadata" => {
                self.piece.clear();
                Place::Meta
            }
            (Place::Colon, _) => Place::Skip,
            (Place::Items, b'{') => {
                self.piece.clear();
                Place::Item
            }
            (place, _) => place,
        };
    }

    fn close<E: From<PieceError>>(
        &mut self,
        byte: u8,
        take: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.depth = self.depth.checked_sub(1).ok_or(PieceError::Form)?;
        self.keep(&[byte])?;
        match (self.place, self.depth) {
            (Place::Item, 2) => {
                take(Piece::Item(&self.piece))?;
                self.place = Place::Items;
            }
            (Place::Meta, 1) => {
                take(Piece::Meta(&self.piece))?;
                self.place = Place::Skip;
            }
            (Place::Items, 1) => self.place = Place::Skip,
            (_, 0) => self.place = Place::Outside,
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The pieces of a page that comes in parts of a given length.
    fn cut(page: &str, length: usize) -> Result<(Vec<String>, bool), PieceError> {
        let (mut reader, mut pieces) = (Page::default(), Vec::new());
        for part in page.as_bytes().chunks(length) {
            reader.feed(part, |piece| {
                pieces.push(match piece {
                    Piece::Item(json) => format!("item {}", String::from_utf8_lossy(json)),
                    Piece::Meta(json) => format!("meta {}", String::from_utf8_lossy(json)),
                });
                Ok::<_, PieceError>(())
            })?;
        }
        Ok((pieces, reader.is_whole()))
    }

    #[test]
    fn a_page_is_cut_into_its_items_wherever_its_parts_end() {
        let page = r#" {"kind" : "NodeList","x":[{"items":[{"no":1}]}],"metadata":{"resourceVersion":"7","a":{"b":[]}},
            "items":[{"a":"}{\"]["} , {"b":[{"c":"\\"}]}],"n":1,"items2":[{}]} "#;
        let expected = [
            r#"meta {"resourceVersion":"7","a":{"b":[]}}"#,
            r#"item {"a":"}{\"]["}"#,
            r#"item {"b":[{"c":"\\"}]}"#,
        ];
        for length in 1..page.len() {
            let (pieces, is_whole) = cut(page, length).unwrap();
            assert_eq!(pieces, expected, "parts of {length}");
            assert!(is_whole, "parts of {length}");
        }
    }

    #[test]
    fn a_page_that_was_cut_off_is_not_whole() {
        let page = r#"{"metadata":{},"items":[{"a":1},{"b":2}]}"#;
        for end in 1..page.len() {
            let (_, is_whole) = cut(page.get(..end).unwrap(), 3).unwrap();
            assert!(!is_whole, "{end}");
        }
        assert_eq!(cut(page, 4).unwrap().0.len(), 3);
    }

    #[test]
    fn what_is_no_list_has_no_pieces() {
        for page in [
            "",
            "null",
            "[1,2]",
            r#"{"items":null,"metadata":null}"#,
            "<html>\"items\":[{}]",
        ] {
            assert_eq!(cut(page, 1).unwrap().0, Vec::<String>::new(), "{page}");
        }
        assert_eq!(cut("}", 1), Err(PieceError::Form));
    }

    #[test]
    fn an_item_out_of_all_proportion_ends_the_reading() {
        let page = format!(r#"{{"items":[{{"a":"{}"}}]}}"#, "x".repeat(MAX_PIECE_BYTES));
        assert_eq!(cut(&page, 1 << 16), Err(PieceError::TooLong));
        let mut lines = Lines::default();
        let fed = lines.feed(page.as_bytes(), |_| Ok::<_, PieceError>(()));
        assert_eq!(fed, Err(PieceError::TooLong));
    }

    proptest! {
        #[test]
        fn lines_come_whole_wherever_parts_end(
            lines in proptest::collection::vec("[a-z{}]{1,20}", 0..20),
            length in 1_usize..40,
        ) {
            let stream = lines.iter().map(|line| format!("{line}\n")).collect::<String>() + "unfinished";
            let (mut reader, mut found) = (Lines::default(), Vec::new());
            for part in stream.as_bytes().chunks(length) {
                reader.feed(part, |line| {
                    found.push(String::from_utf8(line.to_vec()).unwrap());
                    Ok::<_, PieceError>(())
                }).unwrap();
            }
            prop_assert_eq!(found, lines);
        }

        #[test]
        fn any_bytes_are_cut_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Page::default();
            reader.feed(&bytes, |_| Ok::<_, PieceError>(())).ok();
        }
    }
}
