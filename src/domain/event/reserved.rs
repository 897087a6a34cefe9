//! [`refusals`]: types that nobody may publish, because they are Postrider's own.

use super::Draft;
use super::refusal::{EventFault, EventFaults, FaultReason, Pointer};
use crate::domain::operation::{PREFIX, is_operational};
use crate::domain::type_rules::Places;

/// The events of a request whose type begins with `postrider.`; empty when none does.
#[must_use]
pub fn refusals(drafts: &[Draft], places: Places) -> EventFaults {
    let mut faults = EventFaults::default();
    let own = drafts
        .iter()
        .enumerate()
        .filter(|(_, draft)| is_operational(&draft.content.event_type));
    for (index, _) in own {
        let index = places.is_batch.then_some(index);
        // In the binary mode of CloudEvents the type comes in a header.
        let mut pointer = Pointer::new(if places.is_data { "" } else { "/type" });
        if let Some(index) = index {
            pointer.prepend_index(index);
        }
        faults.push(EventFault {
            index,
            pointer,
            reason: FaultReason::ReservedType,
            detail: format!("types that begin with {PREFIX:?} are Postrider's own; choose another name"),
        });
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::sample;

    #[test]
    fn a_type_of_postriders_own_is_refused_wherever_it_stands() {
        let drafts =
            sample::drafts(r#"[{"type":"a"},{"type":"postrider.x"},{"type":"postriders"}]"#).unwrap();
        let places = Places {
            is_batch: true,
            is_data: false,
        };
        let faults = refusals(&drafts, places);
        assert_eq!(faults.indices(), [1]);
        assert_eq!(faults.listed()[0].pointer.as_str(), "/1/type");
        assert!(refusals(&drafts[..1], Places::default()).listed().is_empty());
    }
}
