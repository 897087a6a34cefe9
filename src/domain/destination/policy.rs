//! Reads `spec.delivery` beyond timeout and schedule.

use std::time::Duration;

use super::Identity;
use super::check::Check;
use crate::api::v1alpha1::delivery::{DedupSpec, Ordering, RateLimitSpec};
use crate::api::v1alpha1::event_destination::{DeliverySpec, EventDestinationSpec, RetrySpec};
use crate::domain::duration;
use crate::domain::policy::Policy;
use crate::domain::policy::dedup::{Dedup, LONGEST_WINDOW, SHORTEST_WINDOW};
use crate::domain::policy::key::Key;
use crate::domain::policy::order::Order;
use crate::domain::policy::rate::Rate;
use crate::domain::policy::replies::{MAX_ENTRIES, RetryRules, Statuses};

/// Most events of a rate, and of its burst.
const MAX_RATE: u32 = 100_000;

/// The dedup of a spec; `None` while it is faulty.
pub(super) fn dedup(spec: &DedupSpec) -> Option<Dedup> {
    let window = duration::parse(&spec.window.0)?;
    Some(Dedup {
        key: Key::parse(&spec.key).ok()?,
        window: Some(window).filter(|window| (SHORTEST_WINDOW..=LONGEST_WINDOW).contains(window))?,
    })
}

impl Check<'_> {
    pub(super) fn policy(&mut self, identity: &Identity, spec: &EventDestinationSpec) -> Policy {
        let Some(delivery) = &spec.delivery else {
            return Policy::default();
        };
        if let Some(spec) = &delivery.dedup {
            let (least, most) = (SHORTEST_WINDOW, LONGEST_WINDOW);
            self.event_key("spec.delivery.dedup.key", &spec.key);
            self.bounded("spec.delivery.dedup.window", Some(&spec.window), least, most);
        }
        Policy {
            success: self.success(delivery.success.as_deref(), spec.email.is_some()),
            rate: delivery.rate_limit.as_ref().and_then(|rate| self.rate(rate)),
            order: self.order(delivery),
            dead_letter: self.dead_letter(identity, delivery),
        }
    }

    fn dead_letter(&mut self, identity: &Identity, delivery: &DeliverySpec) -> Option<Box<str>> {
        let target = delivery.dead_letter.as_ref()?;
        if target.name == *identity.key.name {
            self.faults.invalid(
                "spec.delivery.deadLetter.name",
                "a destination cannot take its own dead letters; name another one",
            );
        }
        Some(target.name.as_str().into())
    }

    fn success(&mut self, entries: Option<&[String]>, is_email: bool) -> Option<Statuses> {
        const PATH: &str = "spec.delivery.success";
        let entries = entries?;
        if is_email {
            self.faults.invalid(
                PATH,
                "this belongs to webhooks; a mail server's answers are fixed; remove it",
            );
        }
        self.length(PATH, entries.len());
        match Statuses::parse(entries) {
            Ok(statuses) => Some(statuses),
            Err(faults) => {
                for (index, fault) in faults {
                    self.faults.invalid(format!("{PATH}[{index}]"), fault);
                }
                None
            }
        }
    }

    pub(super) fn retry_rules(&mut self, spec: &RetrySpec) -> RetryRules {
        for (name, entries) in [("retryOn", &spec.retry_on), ("giveUpOn", &spec.give_up_on)] {
            if let Some(entries) = entries {
                self.length(&format!("spec.delivery.retry.{name}"), entries.len());
            }
        }
        match RetryRules::parse(spec.retry_on.as_deref(), spec.give_up_on.as_deref()) {
            Ok(rules) => rules,
            Err(faults) => {
                for (list, index, fault) in faults {
                    self.faults
                        .invalid(format!("spec.delivery.retry.{list}[{index}]"), fault);
                }
                RetryRules::default()
            }
        }
    }

    fn length(&mut self, path: &str, length: usize) {
        if length == 0 || length > MAX_ENTRIES {
            self.faults.invalid(
                path,
                format!("give 1 to {MAX_ENTRIES} entries, or remove the list"),
            );
        }
    }

    fn order(&mut self, delivery: &DeliverySpec) -> Option<Order> {
        const PATH: &str = "spec.delivery.orderingKey";
        let key = delivery.ordering_key.as_deref();
        match delivery.ordering.unwrap_or_default() {
            Ordering::Fifo => Some(Order {
                key: key.and_then(|key| self.event_key(PATH, key)),
            }),
            Ordering::None => {
                if key.is_some() {
                    self.faults
                        .invalid(PATH, "this belongs to ordering: Fifo; set it or remove this");
                }
                None
            }
        }
    }

    fn event_key(&mut self, path: &str, source: &str) -> Option<Key> {
        match Key::parse(source) {
            Ok(key) => Some(key),
            Err(fault) => {
                self.faults.invalid(path, fault);
                None
            }
        }
    }

    fn rate(&mut self, spec: &RateLimitSpec) -> Option<Rate> {
        const PATH: &str = "spec.delivery.rateLimit";
        let events = self.count(&format!("{PATH}.events"), Some(spec.events), MAX_RATE);
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
        let per = self.bounded(&format!("{PATH}.per"), Some(&spec.per), least, most);
        let burst = match spec.burst {
            None => Some(1),
            burst => self.count(&format!("{PATH}.burst"), burst, MAX_RATE),
        };
        Some(Rate::new(events?, per?, burst?))
    }
}
