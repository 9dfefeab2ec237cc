//! Workflows of normal sessions, so that an alert says where in its task it happened.
//!
//! Du et al. 2017, section 4: log keys are separated into tasks by how often they occur together (4.3), and within a
//! task the order in which they follow each other tells sequence, concurrency, loops and branches apart (4.1, 4.2).
//!
//! - **Tasks**: two templates belong to one task when one of them hardly occurs without the other: max(p(a|b),
//!   p(b|a)) ≥ .9 over sessions. What two tasks share makes them one with a branch.
//! - **Order**: sessions are projected on a task's templates, so that records of other tasks in between do not
//!   matter. a → b is an edge when b directly follows a in at least 5 % of the sessions with a, or in none more
//!   often.
//! - **Loop**: an edge to itself, or back to a template that first occurs before.
//! - **Concurrent**: edges both ways, with neither nearly always first. Concurrent templates share a step.
//! - **Branch**: edges to several templates that are not concurrent; which of them is taken, a session decides.
//!
//! Cost: the square of a session's distinct templates, for each distinct session. Memory: the pairs that occur
//! together while it is built; at most `MAX_FOLLOWERS` edges a template after it. Fails where a session key is too
//! coarse, so that everything occurs with everything: one large workflow comes out, and says little. Streams without
//! a session key have none.
//!
//! Differs from the paper: it counts over sessions instead of within a distance of d records, as a session key
//! separates what d is to separate; and it counts instead of asking the network, whose predictions at a fork agree
//! with the counts.

use std::collections::BTreeMap;

use faultline_core::{LogWindow, TemplateId};
use rustc_hash::FxHashMap;

/// Share of sessions with the rarer of two templates that hold the other, from which on they belong to one task.
const TOGETHER: f64 = 0.9;

/// Share of sessions with a template in which another directly follows it, from which on it is an edge.
const SUPPORT: f64 = 0.05;

/// Share of sessions in which the less usual of two orders occurs, from which on they are concurrent.
const EITHER_ORDER: f64 = 0.1;

/// Sessions that a template occurs in, below which it has no place.
const MIN_SESSIONS: u64 = 3;

/// Distinct templates of one session that are looked at, the first ones: bounds the pairs.
const MAX_DISTINCT: usize = 256;

/// Edges kept of one template, the most frequent first.
const MAX_FOLLOWERS: usize = 16;

/// How one template follows another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It comes later.
    Then,
    /// Either may come first.
    Concurrent,
    /// It comes again.
    Loop,
}

/// A template in its workflow.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Which.
    pub template: TemplateId,
    /// Which workflow, from 0.
    pub workflow: usize,
    /// Its step, from 1; concurrent templates share one.
    pub step: usize,
    /// Share of the sessions with it that begin with it, and that end with it.
    pub begins: f64,
    /// See `begins`.
    pub ends: f64,
    /// What directly follows it, in which share of the sessions with it; the most frequent first.
    pub next: Vec<(TemplateId, Order, f64)>,
}

/// The workflows of a model: its nodes by workflow and step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workflows {
    nodes: Vec<Node>,
    place: FxHashMap<TemplateId, usize>,
}

/// Where in a workflow something happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Position {
    /// Which workflow, from 1.
    pub workflow: usize,
    /// The step after which it happened; 0 before the first.
    pub step: usize,
    /// Steps it has.
    pub n_steps: usize,
    /// What may follow there, the most frequent first; the end as none.
    pub expected: Vec<Option<TemplateId>>,
    /// The step at which the template that came instead belongs, where it belongs to this workflow.
    pub own_step: Option<usize>,
}

/// What is counted of a pair of templates.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    /// Sessions that hold both.
    together: u64,
    /// Of those, sessions in which the first of the pair occurs first.
    first: u64,
}

impl Workflows {
    /// Of the closed sessions among `windows`.
    pub fn mine(windows: &[&LogWindow<'_>]) -> Self {
        let mut sessions: BTreeMap<Vec<TemplateId>, u64> = BTreeMap::new();
        for log in windows.iter().filter(|log| !log.is_stream && log.n_dropped == 0) {
            *sessions.entry(log.records.iter().map(|record| record.template).collect()).or_default() += 1;
        }
        let mut counts: BTreeMap<TemplateId, u64> = BTreeMap::new();
        let mut pairs: BTreeMap<(TemplateId, TemplateId), Pair> = BTreeMap::new();
        for (session, &n) in &sessions {
            let mut seen: Vec<TemplateId> = Vec::new();
            for &template in session {
                if seen.len() < MAX_DISTINCT && !seen.contains(&template) {
                    seen.push(template);
                }
            }
            for (at, &template) in seen.iter().enumerate() {
                *counts.entry(template).or_default() += n;
                for &before in &seen[..at] {
                    let pair = pairs.entry((before.min(template), before.max(template))).or_default();
                    pair.together += n;
                    pair.first += if before < template { n } else { 0 };
                }
            }
        }
        counts.retain(|_, n| *n >= MIN_SESSIONS);
        let mut nodes = Vec::new();
        for task in tasks(&counts, &pairs) {
            let workflow = nodes.last().map_or(0, |node: &Node| node.workflow + 1);
            nodes.extend(nodes_of(&task, workflow, &sessions, &counts, &pairs));
        }
        Self::of(nodes)
    }

    /// From nodes that are in order of workflow and step.
    pub fn of(nodes: Vec<Node>) -> Self {
        let place = nodes.iter().enumerate().map(|(idx, node)| (node.template, idx)).collect();
        Self { nodes, place }
    }

    /// All nodes, by workflow and step.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    fn node(&self, template: TemplateId) -> Option<&Node> {
        self.place.get(&template).map(|&idx| &self.nodes[idx])
    }

    /// Where `log` was when its record `at` came (or, at its length, when it ended): after the last record before it
    /// that has a place.
    #[must_use]
    pub fn position(&self, log: &LogWindow<'_>, at: usize) -> Option<Position> {
        let came = log.records.get(at).and_then(|record| self.node(record.template));
        // The last record of the task that the record belongs to, or else of any.
        let before = log.records[..at].iter().rev().filter_map(|record| self.node(record.template));
        let last = match came {
            Some(came) => {
                let own = before.clone().find(|node| node.workflow == came.workflow);
                // What begins a task begins it whatever was before.
                if came.begins >= SUPPORT { own } else { own.or_else(|| before.clone().next()) }
            }
            None => before.clone().next(),
        };
        let workflow = last.or(came)?.workflow;
        let own = || self.nodes.iter().filter(|node| node.workflow == workflow);
        let mut expected: Vec<(Option<TemplateId>, f64)> = match last {
            Some(last) => last.next.iter().map(|(template, _, share)| (Some(*template), *share)).collect(),
            None => own().map(|node| (Some(node.template), node.begins)).filter(|next| next.1 >= SUPPORT).collect(),
        };
        expected.extend(last.filter(|last| last.ends >= SUPPORT).map(|last| (None, last.ends)));
        expected.sort_by(|a, b| b.1.total_cmp(&a.1));
        Some(Position {
            workflow: workflow + 1,
            step: last.map_or(0, |last| last.step),
            n_steps: own().map(|node| node.step).max().unwrap_or(0),
            expected: expected.into_iter().map(|(template, _)| template).collect(),
            own_step: came.filter(|came| came.workflow == workflow).map(|came| came.step),
        })
    }
}

impl Position {
    /// For a person: `after step 4 of 9 in workflow 2, where template 5, template 7 or the end follows`.
    #[must_use]
    pub fn describe(&self) -> String {
        const MAX_NAMED: usize = 4;
        let place = match self.step {
            0 => format!("at the beginning of workflow {}", self.workflow),
            step => format!("after step {step} of {} in workflow {}", self.n_steps, self.workflow),
        };
        let name =
            |next: &Option<TemplateId>| next.map_or("the end".to_owned(), |template| format!("template {template}"));
        let names: Vec<String> = self.expected.iter().take(MAX_NAMED).map(name).collect();
        let mut text = match names.as_slice() {
            [] => place,
            [one] => format!("{place}, where {one} follows"),
            [most @ .., last] => format!("{place}, where {} or {last} follows", most.join(", ")),
        };
        if let Some(step) = self.own_step.filter(|step| *step != self.step && *step != self.step + 1) {
            text.push_str(&format!("; it belongs at step {step}"));
        }
        text
    }
}

/// Templates that belong together, each task in order of id, tasks in order of their first.
fn tasks(counts: &BTreeMap<TemplateId, u64>, pairs: &BTreeMap<(TemplateId, TemplateId), Pair>) -> Vec<Vec<TemplateId>> {
    let mut owner: BTreeMap<TemplateId, TemplateId> = counts.keys().map(|&template| (template, template)).collect();
    for (&(a, b), pair) in pairs {
        let (Some(&n_a), Some(&n_b)) = (counts.get(&a), counts.get(&b)) else { continue };
        if pair.together as f64 >= TOGETHER * n_a.min(n_b) as f64 {
            join(&mut owner, a, b);
        }
    }
    groups(&mut owner)
}

/// Makes two members of a forest one tree; the smallest is the root.
fn join(owner: &mut BTreeMap<TemplateId, TemplateId>, a: TemplateId, b: TemplateId) {
    let (a, b) = (root(owner, a), root(owner, b));
    owner.insert(a.max(b), a.min(b));
}

fn root(owner: &mut BTreeMap<TemplateId, TemplateId>, of: TemplateId) -> TemplateId {
    let mut root = of;
    while owner[&root] != root {
        root = owner[&root];
    }
    owner.insert(of, root);
    root
}

fn groups(owner: &mut BTreeMap<TemplateId, TemplateId>) -> Vec<Vec<TemplateId>> {
    let mut groups: BTreeMap<TemplateId, Vec<TemplateId>> = BTreeMap::new();
    for template in owner.keys().copied().collect::<Vec<_>>() {
        groups.entry(root(owner, template)).or_default().push(template);
    }
    groups.into_values().collect()
}

/// What is counted of one template in the sessions of its task.
#[derive(Debug, Default)]
struct Count {
    begins: u64,
    ends: u64,
    /// Sum over sessions of the place of its first occurrence among the session's templates, from 0 to 1.
    place: f64,
    /// Sessions in which each directly follows it.
    next: BTreeMap<TemplateId, u64>,
}

fn nodes_of(
    task: &[TemplateId],
    workflow: usize,
    sessions: &BTreeMap<Vec<TemplateId>, u64>,
    counts: &BTreeMap<TemplateId, u64>,
    pairs: &BTreeMap<(TemplateId, TemplateId), Pair>,
) -> Vec<Node> {
    let mut own: BTreeMap<TemplateId, Count> = task.iter().map(|&template| (template, Count::default())).collect();
    for (session, &n) in sessions {
        let projected: Vec<TemplateId> =
            session.iter().copied().filter(|template| task.binary_search(template).is_ok()).collect();
        let (Some(first), Some(last)) = (projected.first(), projected.last()) else { continue };
        own.entry(*first).or_default().begins += n;
        own.entry(*last).or_default().ends += n;
        let mut seen: Vec<TemplateId> = Vec::new();
        let mut steps: Vec<(TemplateId, TemplateId)> = projected.windows(2).map(|step| (step[0], step[1])).collect();
        steps.sort_unstable();
        steps.dedup();
        for (from, to) in steps {
            *own.entry(from).or_default().next.entry(to).or_default() += n;
        }
        for (at, &template) in projected.iter().enumerate() {
            if !seen.contains(&template) {
                seen.push(template);
                own.entry(template).or_default().place += n as f64 * at as f64 / projected.len() as f64;
            }
        }
    }
    // Whether a comes first, as a share of the sessions with both.
    let comes_first = |a: TemplateId, b: TemplateId| {
        let pair = pairs.get(&(a.min(b), a.max(b))).copied().unwrap_or_default();
        let share = pair.first as f64 / pair.together.max(1) as f64;
        if a < b { share } else { 1.0 - share }
    };
    let is_edge = |from: TemplateId, to: TemplateId| {
        let next = &own[&from].next;
        let most = next.values().copied().max().unwrap_or(0);
        next.get(&to).is_some_and(|&n| n == most || n as f64 >= SUPPORT * counts[&from] as f64)
    };
    let order_of = |from: TemplateId, to: TemplateId| {
        let first = comes_first(from, to);
        match () {
            () if from == to => Order::Loop,
            () if is_edge(to, from) && first.min(1.0 - first) >= EITHER_ORDER => Order::Concurrent,
            () if first < 0.5 => Order::Loop,
            () => Order::Then,
        }
    };
    let steps = steps_of(task, &own, counts, is_edge, order_of);
    let mut nodes: Vec<Node> = own
        .iter()
        .map(|(&template, count)| {
            let n = counts[&template] as f64;
            let mut next: Vec<(TemplateId, Order, f64)> = count
                .next
                .iter()
                .filter(|(to, _)| is_edge(template, **to))
                .map(|(&to, &times)| (to, order_of(template, to), times as f64 / n))
                .collect();
            next.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)));
            next.truncate(MAX_FOLLOWERS);
            let (begins, ends) = (count.begins as f64 / n, count.ends as f64 / n);
            Node { template, workflow, step: steps[&template], begins, ends, next }
        })
        .collect();
    nodes.sort_by_key(|node| (node.step, node.template));
    nodes
}

/// The step of each template: one more than the last of those before it. Concurrent ones are one group, and groups
/// are taken in order of where they stand in sessions on average, so that a cycle among them cannot hold them up.
fn steps_of(
    task: &[TemplateId],
    own: &BTreeMap<TemplateId, Count>,
    counts: &BTreeMap<TemplateId, u64>,
    is_edge: impl Fn(TemplateId, TemplateId) -> bool,
    order_of: impl Fn(TemplateId, TemplateId) -> Order,
) -> BTreeMap<TemplateId, usize> {
    let edges: Vec<(TemplateId, TemplateId, Order)> = own
        .iter()
        .flat_map(|(&from, count)| count.next.keys().map(move |&to| (from, to)))
        .filter(|&(from, to)| is_edge(from, to))
        .map(|(from, to)| (from, to, order_of(from, to)))
        .collect();
    let mut owner: BTreeMap<TemplateId, TemplateId> = task.iter().map(|&template| (template, template)).collect();
    for &(from, to, order) in &edges {
        if order == Order::Concurrent {
            join(&mut owner, from, to);
        }
    }
    let mut groups = groups(&mut owner);
    let place = |group: &[TemplateId]| {
        let places = group.iter().map(|template| own[template].place / counts[template] as f64);
        places.sum::<f64>() / group.len() as f64
    };
    groups.sort_by(|a, b| place(a).total_cmp(&place(b)).then_with(|| a.cmp(b)));
    let mut steps: BTreeMap<TemplateId, usize> = BTreeMap::new();
    for group in groups {
        let before = edges
            .iter()
            .filter(|(from, to, order)| *order == Order::Then && group.contains(to) && !group.contains(from))
            .filter_map(|(from, ..)| steps.get(from));
        let step = 1 + before.max().copied().unwrap_or(0);
        steps.extend(group.iter().map(|&template| (template, step)));
    }
    steps
}

#[cfg(test)]
mod tests {
    use faultline_core::Window;

    use super::*;
    use crate::testing::Session;

    fn mined(kinds: &[(&[u64], usize)]) -> Workflows {
        let sessions: Vec<Session> =
            kinds.iter().flat_map(|(templates, n)| (0..*n).map(|_| Session::of("s", templates))).collect();
        let windows: Vec<Window<'_>> = sessions.iter().map(Session::closed).collect();
        Workflows::mine(&windows.iter().filter_map(Window::as_log).collect::<Vec<_>>())
    }

    fn edges(workflows: &Workflows, template: u64) -> Vec<(u64, Order)> {
        let node = workflows.node(TemplateId(template)).expect("it has a place");
        node.next.iter().map(|(template, order, _)| (template.0, *order)).collect()
    }

    fn step(workflows: &Workflows, template: u64) -> (usize, usize) {
        let node = workflows.node(TemplateId(template)).expect("it has a place");
        (node.workflow, node.step)
    }

    #[test]
    fn tasks_that_never_meet_are_two_workflows_and_interleaved_ones_are_taken_apart() {
        let workflows = mined(&[(&[1, 2, 3], 20), (&[7, 8, 9], 20), (&[1, 7, 2, 8, 9, 3], 1)]);
        let placed = [1, 2, 3, 7, 8, 9].map(|template| step(&workflows, template));
        assert_eq!(placed, [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]);
        assert_eq!(edges(&workflows, 1), [(2, Order::Then)], "7 between them is another task's");
    }

    #[test]
    fn a_branch_a_loop_and_concurrency_are_told_apart() {
        let branch = mined(&[(&[1, 2, 4], 20), (&[1, 3, 4], 10)]);
        assert_eq!(edges(&branch, 1), [(2, Order::Then), (3, Order::Then)]);
        assert_eq!([1, 2, 3, 4].map(|template| step(&branch, template).1), [1, 2, 2, 3]);
        let again = mined(&[(&[1, 2, 3, 4], 20), (&[1, 2, 3, 2, 3, 3, 4], 10)]);
        assert_eq!(edges(&again, 3), [(4, Order::Then), (2, Order::Loop), (3, Order::Loop)]);
        assert_eq!([1, 2, 3, 4].map(|template| step(&again, template).1), [1, 2, 3, 4]);
        let both = mined(&[(&[1, 2, 3, 4], 20), (&[1, 3, 2, 4], 15)]);
        assert_eq!(edges(&both, 2), [(3, Order::Concurrent), (4, Order::Then)]);
        assert_eq!(edges(&both, 3), [(4, Order::Then), (2, Order::Concurrent)]);
        assert_eq!([1, 2, 3, 4].map(|template| step(&both, template).1), [1, 2, 2, 3], "concurrent: one step");
    }

    #[test]
    fn a_position_names_the_step_and_what_may_follow() {
        let workflows = mined(&[(&[1, 2, 4, 5], 20), (&[1, 3, 4], 10)]);
        let session = Session::of("x", &[1, 99, 5, 2]);
        let Window::Log(log) = session.closed() else { unreachable!("a log window") };
        let unplaced = workflows.position(&log, 1).expect("after 1");
        assert_eq!((unplaced.workflow, unplaced.step, unplaced.n_steps, unplaced.own_step), (1, 1, 4, None));
        assert_eq!(unplaced.describe(), "after step 1 of 4 in workflow 1, where template 2 or template 3 follows");
        let early = workflows.position(&log, 2).expect("after 1 too, as 99 has no place");
        assert_eq!((early.step, early.own_step), (1, Some(4)));
        assert!(early.describe().ends_with("; it belongs at step 4"), "{}", early.describe());
        let end = workflows.position(&log, 4).expect("after 2");
        assert_eq!(end.expected, [Some(TemplateId(4))]);
        let first = workflows.position(&log, 0).expect("1 itself has a place");
        assert_eq!(first.describe(), "at the beginning of workflow 1, where template 1 follows");
        let after_four = Session::of("y", &[1, 3, 4]);
        let Window::Log(log) = after_four.closed() else { unreachable!("a log window") };
        let ended = workflows.position(&log, 3).expect("after 4");
        assert_eq!(ended.expected, [Some(TemplateId(5)), None], "a third of the sessions end there");
    }

    #[test]
    fn streams_and_rare_templates_have_no_place() {
        let workflows = mined(&[(&[1, 2], 20), (&[1, 77, 2], 2)]);
        assert!(workflows.node(TemplateId(77)).is_none());
        let session = Session::of("stream", &[1, 2, 3]);
        let Window::Log(mut log) = session.closed() else { unreachable!("a log window") };
        log.is_stream = true;
        assert_eq!(Workflows::mine(&[&log; 10]), Workflows::default());
        assert_eq!(Workflows::default().position(&log, 1), None);
    }
}
