//! Classic consumer groups: join, sync, heartbeat, leave; and committed offsets.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::transactions::{Offsets, TopicPartition};
use crate::{Error, state};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Empty,
    Preparing,
    Completing,
    Stable,
}

impl Phase {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Preparing => "PreparingRebalance",
            Self::Completing => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// What a member gets for its join.
#[derive(Debug, Clone)]
pub(super) struct Joined {
    pub(super) generation: i32,
    pub(super) protocol: String,
    pub(super) leader: String,
    pub(super) member: String,
    /// For the leader: member, instance and metadata of everybody.
    pub(super) members: Vec<(String, Option<String>, Bytes)>,
}

/// A join request.
#[derive(Debug, Clone)]
pub(super) struct Join {
    pub(super) group: String,
    pub(super) member: String,
    pub(super) instance: Option<String>,
    pub(super) client: String,
    pub(super) session: Duration,
    pub(super) rebalance: Duration,
    pub(super) protocol_type: String,
    pub(super) protocols: Vec<(String, Bytes)>,
    /// Whether a new member must come back with the id that it is given.
    pub(super) id_required: bool,
}

type JoinAnswer = oneshot::Sender<Result<Joined, ResponseError>>;
type SyncAnswer = oneshot::Sender<Result<(String, Bytes), ResponseError>>;

pub(super) struct Member {
    pub(super) instance: Option<String>,
    pub(super) client: String,
    session: Duration,
    rebalance: Duration,
    protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    join: Option<JoinAnswer>,
    sync: Option<SyncAnswer>,
    seen: Instant,
}

pub(super) struct Group {
    pub(super) phase: Phase,
    generation: i32,
    pub(super) protocol_type: String,
    pub(super) protocol: String,
    leader: String,
    pub(super) members: BTreeMap<String, Member>,
    /// Ids that were given out and have not come back yet.
    expected: BTreeSet<String>,
    deadline: Instant,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: String::new(),
            members: BTreeMap::new(),
            expected: BTreeSet::new(),
            deadline: Instant::now(),
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    /// Group, topic, partition, offset, metadata.
    offsets: Vec<(String, String, i32, i64, Option<String>)>,
}

pub(super) struct Groups {
    pub(super) groups: BTreeMap<String, Group>,
    offsets: BTreeMap<String, Offsets>,
    file: PathBuf,
}

impl Groups {
    pub(super) fn load(file: PathBuf) -> Result<Self, Error> {
        let stored: Stored = state::load(&file)?;
        let mut offsets: BTreeMap<String, Offsets> = BTreeMap::new();
        for (group, topic, partition, offset, metadata) in stored.offsets {
            offsets.entry(group).or_default().insert((topic, partition), (offset, metadata));
        }
        Ok(Self { groups: BTreeMap::new(), offsets, file })
    }

    pub(super) fn save(&self) -> Result<(), ResponseError> {
        let each = |(group, offsets): (&String, &Offsets)| {
            offsets
                .iter()
                .map(|((topic, partition), (offset, metadata))| {
                    (group.clone(), topic.clone(), *partition, *offset, metadata.clone())
                })
                .collect::<Vec<_>>()
        };
        let stored = Stored { offsets: self.offsets.iter().flat_map(each).collect() };
        state::save(&self.file, &stored).map_err(|error| {
            tracing::error!(error = flux_service::logging::chain(&error), "offsets not saved");
            ResponseError::KafkaStorageError
        })
    }

    pub(super) fn store_offsets(&mut self, group: &str, offsets: Offsets) {
        self.offsets.entry(group.into()).or_default().extend(offsets);
    }

    pub(super) fn offset(&self, group: &str, partition: &TopicPartition) -> Option<&(i64, Option<String>)> {
        self.offsets.get(group)?.get(partition)
    }

    pub(super) fn all_offsets(&self, group: &str) -> Offsets {
        self.offsets.get(group).cloned().unwrap_or_default()
    }

    pub(super) fn forget_topic(&mut self, topic: &str) {
        for offsets in self.offsets.values_mut() {
            offsets.retain(|(name, _), _| name != topic);
        }
        // The next commit saves it too; until then the file names a topic that nobody finds.
        self.save().ok();
    }

    pub(super) fn delete(&mut self, group: &str) -> Result<(), ResponseError> {
        if self.groups.get(group).is_some_and(|group| !group.members.is_empty()) {
            return Err(ResponseError::NonEmptyGroup);
        }
        let known = self.groups.remove(group).is_some() | self.offsets.remove(group).is_some();
        if known { self.save() } else { Err(ResponseError::GroupIdNotFound) }
    }

    /// Groups that exist, with members or only with offsets.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.groups.keys().chain(self.offsets.keys()).cloned().collect()
    }

    /// Answers now, or keeps the answer until everybody has joined.
    pub(super) fn join(&mut self, join: Join, answer: JoinAnswer) {
        let group = self.groups.entry(join.group.clone()).or_default();
        if let Err((refused, answer)) = group.join(join, answer) {
            answer.send(refused).ok();
        }
        group.complete_if_all_joined();
    }

    /// Answers now, or keeps the answer until the leader has assigned.
    pub(super) fn sync(
        &mut self,
        group: &str,
        generation: i32,
        member: &str,
        assignments: Vec<(String, Bytes)>,
        answer: SyncAnswer,
    ) {
        let Some(group) = self.groups.get_mut(group) else {
            answer.send(Err(ResponseError::UnknownMemberId)).ok();
            return;
        };
        if let Err(error) = group.check(generation, member) {
            answer.send(Err(error)).ok();
            return;
        }
        let protocol = group.protocol.clone();
        let leads = group.leader == member;
        let Some(this) = group.members.get_mut(member) else { return };
        this.seen = Instant::now();
        match group.phase {
            Phase::Empty | Phase::Preparing => {
                answer.send(Err(ResponseError::RebalanceInProgress)).ok();
            }
            Phase::Stable => {
                answer.send(Ok((protocol, this.assignment.clone()))).ok();
            }
            Phase::Completing => {
                this.sync = Some(answer);
                if leads {
                    for (name, assignment) in assignments {
                        if let Some(member) = group.members.get_mut(&name) {
                            member.assignment = assignment;
                        }
                    }
                    group.phase = Phase::Stable;
                    for member in group.members.values_mut() {
                        if let Some(answer) = member.sync.take() {
                            answer.send(Ok((protocol.clone(), member.assignment.clone()))).ok();
                        }
                    }
                }
            }
        }
    }

    pub(super) fn heartbeat(&mut self, group: &str, generation: i32, member: &str) -> Result<(), ResponseError> {
        let group = self.groups.get_mut(group).ok_or(ResponseError::UnknownMemberId)?;
        group.check(generation, member)?;
        if let Some(member) = group.members.get_mut(member) {
            member.seen = Instant::now();
        }
        if group.phase == Phase::Preparing { Err(ResponseError::RebalanceInProgress) } else { Ok(()) }
    }

    pub(super) fn leave(&mut self, group: &str, member: &str) -> Result<(), ResponseError> {
        let group = self.groups.get_mut(group).ok_or(ResponseError::UnknownMemberId)?;
        group.remove(member).then_some(()).ok_or(ResponseError::UnknownMemberId)
    }

    /// Whether a commit of this member is allowed; a commit without a generation comes from outside of the group.
    pub(super) fn may_commit(&mut self, group: &str, generation: i32, member: &str) -> Result<(), ResponseError> {
        if generation < 0 && member.is_empty() {
            return Ok(());
        }
        let group = self.groups.get_mut(group).ok_or(ResponseError::UnknownMemberId)?;
        group.check(generation, member)?;
        if let Some(member) = group.members.get_mut(member) {
            member.seen = Instant::now();
        }
        Ok(())
    }

    pub(super) fn tick(&mut self) {
        for group in self.groups.values_mut() {
            group.tick();
        }
    }
}

impl Group {
    fn check(&self, generation: i32, member: &str) -> Result<(), ResponseError> {
        if !self.members.contains_key(member) {
            return Err(ResponseError::UnknownMemberId);
        }
        if generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        Ok(())
    }

    /// Takes the member in, or hands the answer back with what to say at once.
    fn join(&mut self, join: Join, answer: JoinAnswer) -> Result<(), (Result<Joined, ResponseError>, JoinAnswer)> {
        if join.protocols.is_empty() || (!self.members.is_empty() && self.protocol_type != join.protocol_type) {
            return Err((Err(ResponseError::InconsistentGroupProtocol), answer));
        }
        let mut name = join.member.clone();
        if name.is_empty() {
            name = format!("{}-{}", join.client, uuid::Uuid::new_v4());
            if join.id_required {
                self.expected.insert(name.clone());
                let refused = Joined {
                    generation: -1,
                    protocol: String::new(),
                    leader: String::new(),
                    member: name,
                    members: Vec::new(),
                };
                return Err((Ok(refused), answer));
            }
        } else if !self.members.contains_key(&name) && !self.expected.remove(&name) {
            return Err((Err(ResponseError::UnknownMemberId), answer));
        }
        // A member that only asks again what it has been told gets the same answer; nobody else is disturbed.
        let same = self.members.get(&name).is_some_and(|member| member.protocols == join.protocols);
        let settled = self.phase == Phase::Completing || (self.phase == Phase::Stable && self.leader != name);
        if same && settled {
            return Err((Ok(self.joined(&name)), answer));
        }
        self.protocol_type = join.protocol_type;
        let assignment = self.members.remove(&name).map(|member| member.assignment).unwrap_or_default();
        let member = Member {
            instance: join.instance,
            client: join.client,
            session: join.session,
            rebalance: join.rebalance,
            protocols: join.protocols,
            assignment,
            join: Some(answer),
            sync: None,
            seen: Instant::now(),
        };
        self.members.insert(name, member);
        self.prepare();
        Ok(())
    }

    /// Everybody has to join again.
    fn prepare(&mut self) {
        if self.phase == Phase::Preparing {
            return;
        }
        self.phase = Phase::Preparing;
        let longest = self.members.values().map(|member| member.rebalance).max().unwrap_or_default();
        self.deadline = Instant::now() + longest;
        for member in self.members.values_mut() {
            if let Some(answer) = member.sync.take() {
                answer.send(Err(ResponseError::RebalanceInProgress)).ok();
            }
        }
    }

    fn complete_if_all_joined(&mut self) {
        if self.phase == Phase::Preparing && self.members.values().all(|member| member.join.is_some()) {
            self.complete();
        }
    }

    /// Whoever has joined is in; the leader stays if it can.
    fn complete(&mut self) {
        self.members.retain(|_, member| member.join.is_some());
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            return;
        }
        self.generation += 1;
        self.phase = Phase::Completing;
        if !self.members.contains_key(&self.leader) {
            self.leader = self.members.keys().next().cloned().unwrap_or_default();
        }
        let everybody_knows =
            |name: &String| self.members.values().all(|member| member.protocols.iter().any(|(known, _)| known == name));
        let choice = self.members[&self.leader]
            .protocols
            .iter()
            .map(|(name, _)| name)
            .find(|name| everybody_knows(name))
            .cloned();
        self.protocol = choice.unwrap_or_default();
        self.deadline = Instant::now() + self.members.values().map(|member| member.rebalance).max().unwrap_or_default();
        let names: Vec<String> = self.members.keys().cloned().collect();
        for name in names {
            let joined = if self.protocol.is_empty() {
                Err(ResponseError::InconsistentGroupProtocol)
            } else {
                Ok(self.joined(&name))
            };
            if let Some(member) = self.members.get_mut(&name) {
                member.seen = Instant::now();
                if let Some(answer) = member.join.take() {
                    answer.send(joined).ok();
                }
            }
        }
    }

    fn joined(&self, name: &str) -> Joined {
        let members = if name == self.leader {
            self.members
                .iter()
                .map(|(name, member)| (name.clone(), member.instance.clone(), self.metadata(member)))
                .collect()
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            member: name.into(),
            members,
        }
    }

    fn remove(&mut self, name: &str) -> bool {
        let known = self.members.remove(name).is_some();
        if known {
            if self.members.is_empty() {
                self.phase = Phase::Empty;
            } else {
                self.prepare();
                self.complete_if_all_joined();
            }
        }
        known
    }

    fn tick(&mut self) {
        let silent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.join.is_none() && member.seen.elapsed() > member.session)
            .map(|(name, _)| name.clone())
            .collect();
        for name in silent {
            tracing::info!(name, "member left silently");
            self.remove(&name);
        }
        if Instant::now() < self.deadline {
            return;
        }
        match self.phase {
            Phase::Preparing => self.complete(),
            // The leader has not assigned: begin again without it.
            Phase::Completing => {
                let leader = self.leader.clone();
                self.remove(&leader);
            }
            Phase::Empty | Phase::Stable => {}
        }
    }

    /// Metadata that a member gave for the chosen protocol.
    pub(super) fn metadata(&self, member: &Member) -> Bytes {
        member
            .protocols
            .iter()
            .find(|(known, _)| *known == self.protocol)
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }
}
