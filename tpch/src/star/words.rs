//! Names, sentences and addresses, made of a few words: strings as long and as much alike as those of real data.

use super::draw::Draw;

/// What titles are made of, first part.
const ADJECTIVES: [&str; 24] = [
    "Amber", "Broken", "Crimson", "Distant", "Electric", "Frozen", "Golden", "Hollow", "Idle", "Jagged",
    "Last", "Midnight", "Northern", "Open", "Paper", "Quiet", "Restless", "Silver", "Tidal", "Urban",
    "Velvet", "Wild", "Yellow", "Zero",
];

/// What titles are made of, second part.
const NOUNS: [&str; 24] = [
    "Anchor",
    "Bridge",
    "Candle",
    "Dancer",
    "Echo",
    "Fire",
    "Garden",
    "Harbour",
    "Island",
    "Journey",
    "Lantern",
    "Mirror",
    "Night",
    "Ocean",
    "Parade",
    "River",
    "Satellite",
    "Signal",
    "Stranger",
    "Summer",
    "Tower",
    "Valley",
    "Winter",
    "Window",
];

/// What running text is made of.
const PLAIN: [&str; 32] = [
    "about", "after", "again", "always", "and", "before", "between", "city", "every", "for", "from", "heart",
    "into", "light", "like", "little", "love", "never", "of", "over", "road", "sound", "still", "street",
    "the", "their", "time", "under", "waiting", "where", "with", "without",
];

/// Syllables of places and surnames.
const SYLLABLES: [&str; 20] = [
    "ber", "bro", "dal", "den", "fal", "gar", "hol", "ken", "lin", "mar", "nor", "oth", "pel", "ros", "sta",
    "tem", "ulm", "ver", "win", "zan",
];

/// First names.
pub(super) const FIRST_NAMES: [&str; 20] = [
    "Ada", "Bela", "Chen", "Dora", "Emil", "Fatima", "Goran", "Hana", "Ivo", "Jaya", "Kofi", "Lena", "Milan",
    "Nora", "Omar", "Pia", "Ravi", "Sofia", "Tarik", "Uma",
];

/// Hosts of addresses; no such names can be registered.
pub(super) const HOSTS: [&str; 12] = [
    "blog.example",
    "charts.example",
    "fanzine.example",
    "forum.example",
    "letters.example",
    "lyrics.example",
    "magazine.example",
    "mail.example",
    "news.example",
    "radio.example",
    "search.example",
    "social.example",
];

/// Two words, as of an album.
pub(super) fn title(draw: &mut Draw) -> String {
    format!("{} {}", draw.pick(&ADJECTIVES), draw.pick(&NOUNS))
}

/// A capitalized word of two or three syllables.
pub(super) fn name(draw: &mut Draw) -> String {
    let mut word: String = (0..draw.int(2..=3)).map(|_| draw.pick(&SYLLABLES)).collect();
    if let Some(first) = word.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    word
}

/// Running text of so many words.
pub(super) fn text(draw: &mut Draw, words: i32) -> String {
    let words: Vec<&str> = (0..words).map(|_| draw.pick(&PLAIN)).collect();
    words.join(" ")
}

/// An address with a path and parameters, some ninety characters.
pub(super) fn url(draw: &mut Draw) -> String {
    let host = draw.pick(&HOSTS);
    let section = draw.pick(&["artists", "albums", "live", "playlists", "reviews", "today"]);
    let page = format!("{}-{}", draw.pick(&PLAIN), draw.pick(&NOUNS)).to_lowercase();
    let source = draw.pick(&["banner", "feed", "link", "mailing", "result"]);
    format!("https://{host}/{section}/{page}?utm_source={source}&ref={:016x}", draw.bits())
}

#[cfg(test)]
mod tests {
    use super::super::draw::Seed;
    use super::*;

    #[test]
    fn strings_look_as_intended() {
        let draw = &mut Seed::new("words").at(7);
        let (title, name, text, url) = (title(draw), name(draw), text(draw, 30), url(draw));
        assert_eq!(title.split(' ').count(), 2);
        assert!(name.starts_with(|c: char| c.is_ascii_uppercase()) && name.len() >= 6, "{name}");
        assert_eq!(text.split(' ').count(), 30);
        assert!(url.starts_with("https://") && (60..120).contains(&url.len()), "{url}");
    }
}
