//! [`Requests`]: which request to reconcile is echoed when an object carries several, such as ours and Flux's.
//!
//! Tokens are opaque: one may be a count of seconds and the other a date, so none is newer by its text. The newest
//! request is the one whose token has changed last. What changed while nobody looked is told by the token that was
//! echoed before: the other one.

/// The requests of one object.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    seen: Option<[Option<String>; 2]>,
    newest: Option<String>,
}

impl Requests {
    /// Takes note of an object's present tokens; answers what is to be echoed. `handled` is what was echoed last.
    pub fn note(&mut self, present: [Option<&str>; 2], handled: Option<&str>) -> Option<&str> {
        let present = present.map(|token| token.filter(|token| !token.is_empty()));
        let is_new = |place: usize, token: &str| match &self.seen {
            Some(seen) => seen
                .get(place)
                .is_none_or(|before| before.as_deref() != Some(token)),
            None => handled != Some(token),
        };
        let tokens = || present.into_iter().enumerate();
        let asked = |(place, token): (usize, Option<&str>)| token.is_some_and(|token| is_new(place, token));
        let newest = tokens()
            .filter(|one| asked(*one))
            .filter_map(|(_, token)| token)
            .max();
        let kept = self.newest.as_deref().or(handled);
        let kept = present.into_iter().flatten().find(|token| Some(*token) == kept);
        let newest = newest.or(kept).or_else(|| present.into_iter().flatten().max());
        let newest = newest.map(ToOwned::to_owned);
        self.seen = Some(present.map(|token| token.map(ToOwned::to_owned)));
        self.newest = newest;
        self.newest.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn one_request_is_echoed_as_it_is() {
        let mut requests = Requests::default();
        assert_eq!(requests.note([None, None], None), None);
        assert_eq!(requests.note([Some("1"), None], None), Some("1"));
        assert_eq!(requests.note([Some("1"), None], Some("1")), Some("1"));
        assert_eq!(requests.note([Some(""), Some(DATE)], Some("1")), Some(DATE));
        assert_eq!(requests.note([None, None], Some(DATE)), None);
    }

    #[test]
    fn of_two_requests_the_one_that_changed_is_echoed_whatever_the_tokens_look_like() {
        let mut requests = Requests::default();
        assert_eq!(requests.note([None, Some(DATE)], None), Some(DATE));
        assert_eq!(requests.note([Some("17"), Some(DATE)], Some(DATE)), Some("17"));
        assert_eq!(requests.note([Some("17"), Some(DATE)], Some("17")), Some("17"));
        assert_eq!(requests.note([Some("18"), Some(DATE)], Some("17")), Some("18"));
        let later = "2026-01-02T00:00:00Z";
        assert_eq!(requests.note([Some("18"), Some(later)], Some("18")), Some(later));
    }

    #[test]
    fn a_request_that_came_while_nobody_looked_is_answered() {
        let mut restarted = Requests::default();
        assert_eq!(restarted.note([Some("17"), Some(DATE)], Some(DATE)), Some("17"));
        assert_eq!(restarted.note([Some("17"), Some(DATE)], Some("17")), Some("17"));
    }

    #[test]
    fn without_the_newest_request_the_other_one_stands() {
        let mut requests = Requests::default();
        requests.note([None, Some(DATE)], None);
        requests.note([Some("17"), Some(DATE)], Some(DATE));
        assert_eq!(requests.note([None, Some(DATE)], Some("17")), Some(DATE));
    }
}
