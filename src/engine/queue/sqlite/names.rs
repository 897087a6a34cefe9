//! [`Names`]: the numbers that stand for lanes, projects and their facts.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _};

use super::fault::StoreError;
use crate::domain::health::Health;
use crate::domain::id::Uid;
use crate::domain::project::ProjectFacts;

/// Most facts remembered; beyond, the writer starts over.
const MAX_FACTS: usize = 4096;

/// The names that the writer has interned.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) lanes: HashMap<Uid, i64>,
    pub(super) projects: HashMap<Uid, i64>,
    pub(super) facts: HashMap<Arc<ProjectFacts>, (i64, i64)>,
    /// The facts used last, found by address.
    pub(super) recent: Option<(Arc<ProjectFacts>, (i64, i64))>,
    pub(super) last_lane: i64,
    pub(super) last_facts: i64,
    /// Revisions of the stored healths of lanes, as far as known.
    pub(super) revisions: HashMap<i64, u64>,
    /// What the open transaction made.
    pub(super) fresh: Vec<Fresh>,
}

/// A name that the open transaction made.
#[derive(Debug)]
pub(super) enum Fresh {
    Lane(Uid),
    Project(Uid),
    Facts(Arc<ProjectFacts>),
}

impl Names {
    pub(super) fn lane(&mut self, connection: &Connection, uid: &Uid) -> Result<i64, rusqlite::Error> {
        if let Some(number) = self.lanes.get(uid) {
            return Ok(*number);
        }
        self.last_lane += 1;
        let mut statement =
            connection.prepare_cached("INSERT INTO lanes(number, uid, dropped) VALUES(?1, ?2, 0)")?;
        statement.execute((self.last_lane, uid.as_str()))?;
        self.lanes.insert(uid.clone(), self.last_lane);
        self.fresh.push(Fresh::Lane(uid.clone()));
        Ok(self.last_lane)
    }

    fn project(&mut self, connection: &Connection, uid: &Uid) -> Result<i64, rusqlite::Error> {
        if let Some(number) = self.projects.get(uid) {
            return Ok(*number);
        }
        let mut statement = connection.prepare_cached("INSERT INTO projects(uid) VALUES(?1)")?;
        let number = statement.insert([uid.as_str()])?;
        self.projects.insert(uid.clone(), number);
        self.fresh.push(Fresh::Project(uid.clone()));
        Ok(number)
    }

    /// Revision of the stored health of a lane; 0 when there is none.
    pub(super) fn revision(&self, connection: &Connection, number: i64) -> Result<u64, rusqlite::Error> {
        if let Some(revision) = self.revisions.get(&number) {
            return Ok(*revision);
        }
        let mut statement = connection.prepare_cached("SELECT json FROM health WHERE lane = ?1")?;
        let json: Option<String> = statement.query_row([number], |row| row.get(0)).optional()?;
        let stored = json.and_then(|json| serde_json::from_str::<Health>(&json).ok());
        Ok(stored.map_or(0, |stored| stored.revision))
    }

    /// Numbers of facts and of their project.
    pub(super) fn facts(
        &mut self,
        connection: &Connection,
        facts: &Arc<ProjectFacts>,
    ) -> Result<(i64, i64), StoreError> {
        if let Some((recent, numbers)) = &self.recent
            && Arc::ptr_eq(recent, facts)
        {
            return Ok(*numbers);
        }
        let numbers = match self.facts.get(facts) {
            Some(numbers) => *numbers,
            None => self.new_facts(connection, facts)?,
        };
        self.recent = Some((Arc::clone(facts), numbers));
        Ok(numbers)
    }

    fn new_facts(
        &mut self,
        connection: &Connection,
        facts: &Arc<ProjectFacts>,
    ) -> Result<(i64, i64), StoreError> {
        let project = self.project(connection, &facts.uid)?;
        let json = serde_json::to_string(&**facts).map_err(|error| StoreError::Down(error.to_string()))?;
        let mut known = connection.prepare_cached("SELECT number FROM facts WHERE json = ?1")?;
        let number = if let Some(number) = known.query_row([&json], |row| row.get(0)).optional()? {
            number
        } else {
            self.last_facts += 1;
            let mut statement =
                connection.prepare_cached("INSERT INTO facts(number, json) VALUES(?1, ?2)")?;
            statement.execute((self.last_facts, &json))?;
            self.last_facts
        };
        if self.facts.len() >= MAX_FACTS {
            self.facts.clear();
        }
        self.facts.insert(Arc::clone(facts), (number, project));
        self.fresh.push(Fresh::Facts(Arc::clone(facts)));
        Ok((number, project))
    }
}
