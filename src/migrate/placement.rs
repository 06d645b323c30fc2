//! `table.fields.additional.placement`: where further columns go.

/// A column, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) column: String,
    pub(super) place: Place,
    /// The name of the header, or of the member of the envelope.
    pub(super) name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Header,
    Envelope,
    Partition,
}

/// Reads the list as the router does, or says of each entry that it refuses what is wrong with it.
pub(super) fn read(list: &str) -> Result<Vec<Placement>, Vec<String>> {
    let (mut placements, mut wrong) = (Vec::new(), Vec::new());
    for entry in java_split(list, ',') {
        match placement(entry) {
            Ok(placement) => placements.push(placement),
            Err(what) => wrong.push(what),
        }
    }
    if wrong.is_empty() { Ok(placements) } else { Err(wrong) }
}

fn placement(entry: &str) -> Result<Placement, String> {
    let parts: Vec<&str> = java_split(entry, ':').into_iter().map(str::trim).collect();
    let (column, word, alias) = match parts.as_slice() {
        [column, word] => (*column, *word, *column),
        [column, word, alias] => (*column, *word, *alias),
        _ => {
            return Err(format!(
                "Debezium refuses the entry {entry:?}; it knows column:placement and \
                 column:placement:alias"
            ));
        }
    };
    let place = match word.to_ascii_lowercase().as_str() {
        "header" => Place::Header,
        "envelope" => Place::Envelope,
        "partition" => Place::Partition,
        _ => {
            return Err(format!(
                "Debezium fails at {word:?} of {entry:?}; it knows header, envelope, partition"
            ));
        }
    };
    Ok(Placement { column: column.to_owned(), place, name: alias.to_owned() })
}

/// As `String.split`: empty pieces at the end are no pieces, but of an empty text there is one.
fn java_split(text: &str, at: char) -> Vec<&str> {
    let mut pieces: Vec<&str> = text.split(at).collect();
    while pieces.len() > 1 && pieces.last().is_some_and(|piece| piece.is_empty()) {
        pieces.pop();
    }
    pieces
}
