//! Reads `spec.delivery` beyond timeout and schedule.

use std::time::Duration;

use super::check::Check;
use super::payload::{self, Made};
use super::{Identity, References};
use crate::api::v1alpha1::delivery::{BatchSpec, DedupSpec, Ordering, RateLimitSpec};
use crate::api::v1alpha1::event_destination::{DeliverySpec, EventDestinationSpec, RetrySpec, WebhookTarget};
use crate::api::v1alpha1::request::{CloudEventsMode, ContentType};
use crate::domain::duration;
use crate::domain::format;
use crate::domain::policy::Policy;
use crate::domain::policy::batch::{self, Batch};
use crate::domain::policy::dedup::{Dedup, LONGEST_WINDOW, SHORTEST_WINDOW};
use crate::domain::policy::key::Key;
use crate::domain::policy::order::Order;
use crate::domain::policy::rate::Rate;
use crate::domain::policy::replies::{MAX_ENTRIES, RetryRules, Statuses};
use crate::domain::template::field::has_placeholder;

#[cfg(test)]
mod tests;

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

/// Why events cannot go in batches.
fn batch_faults(
    delivery: &DeliverySpec,
    webhook: Option<&WebhookTarget>,
    references: &References,
) -> Vec<&'static str> {
    let mut faults = Vec::new();
    if delivery.ordering == Some(Ordering::Fifo) {
        faults.push("batch and ordering: Fifo exclude each other; remove one of them");
    }
    let Some(webhook) = webhook else {
        faults.push("this belongs to webhooks; a mail tells of one event; remove it");
        return faults;
    };
    let payload = webhook.payload.clone().unwrap_or_default();
    let is_ready = payload.format.is_some_and(|format| format::of(format).is_some());
    let is_text = payload::made(&payload, references) == Some(Made::Text)
        || matches!(webhook.content_type, Some(ContentType::Form | ContentType::Text));
    let is_template = |text: &Option<String>| text.as_deref().is_some_and(has_placeholder);
    let per_event =
        is_template(&webhook.url) || webhook.headers.iter().any(|header| is_template(&header.value));
    for (is_so, fault) in [
        (
            is_ready,
            "the ready formats of services take one event each; remove batch",
        ),
        (
            webhook.cloud_events == Some(CloudEventsMode::Binary),
            "a request holds one CloudEvent in binary mode; use cloudEvents: Structured, or remove batch",
        ),
        (
            is_text,
            "the body is no JSON value, which a member of an array must be; change payload and contentType, or remove batch",
        ),
        (
            per_event,
            "a request is for several events; remove the placeholders from spec.webhook.url and headers, or remove batch",
        ),
    ] {
        faults.extend(is_so.then_some(fault));
    }
    faults
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
            batch: delivery
                .batch
                .as_ref()
                .and_then(|batch| self.batch(batch, delivery, spec.webhook.as_ref())),
            dead_letter: self.dead_letter(identity, delivery),
        }
    }

    fn batch(
        &mut self,
        batch: &BatchSpec,
        delivery: &DeliverySpec,
        webhook: Option<&WebhookTarget>,
    ) -> Option<Batch> {
        const PATH: &str = "spec.delivery.batch";
        for fault in batch_faults(delivery, webhook, self.references) {
            self.faults.invalid(PATH, fault);
        }
        let (least, most) = batch::WAITS;
        let max_wait = self.bounded(&format!("{PATH}.maxWait"), Some(&batch.max_wait), least, most);
        let max_age = delivery.max_age.as_ref().and_then(|age| duration::parse(&age.0));
        if let (Some(wait), Some(age)) = (max_wait, max_age)
            && wait >= age
        {
            self.faults.invalid(
                format!("{PATH}.maxWait"),
                "must be shorter than spec.delivery.maxAge, or events are given up while they wait for others; shorten \
                 maxWait or lengthen maxAge",
            );
        }
        let max_events = u32::try_from(batch.max_events)
            .ok()
            .filter(|events| (batch::LEAST_EVENTS..=batch::MOST_EVENTS).contains(events));
        if max_events.is_none() {
            let message = format!(
                "must be between {} and {}",
                batch::LEAST_EVENTS,
                batch::MOST_EVENTS
            );
            self.faults.invalid(format!("{PATH}.maxEvents"), message);
        }
        Some(Batch {
            max_events: usize::try_from(max_events?).ok()?,
            max_wait: max_wait?,
        })
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
