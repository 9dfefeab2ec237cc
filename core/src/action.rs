//! The repair vocabulary (stations 11 and 12): everything faultline can ever propose is a value of [`ActionKind`].

use serde::{Deserialize, Serialize};

/// What is done to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// Change the number of replicas.
    ScaleReplicas,
    /// Change the CPU given to each replica.
    ResizeCpu,
    /// Change the memory given to each replica.
    ResizeMemory,
    /// Turn an optional service down.
    Brownout,
    /// Open or close a circuit to a dependency.
    Circuit,
    /// Change traffic rules of the mesh.
    TrafficRule,
    /// Restart an instance or a rollout.
    Restart,
    /// Go back to the previous version.
    RollBack,
    /// Place or migrate an instance.
    Place,
    /// Leave everything as it is; an answer like any other.
    Nothing,
}

/// One proposed change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Service or instance that changes.
    pub target: String,
    /// What is done to it.
    pub kind: ActionKind,
    /// Value before, as the policy saw it.
    pub from: f64,
    /// Value after.
    pub to: f64,
    /// Why, in one sentence.
    pub reason: String,
    /// Name and version of the policy that proposes it.
    pub policy: String,
    /// What the policy expects it to do, in one sentence.
    pub expected_effect: String,
}

/// What became of an action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// Carried out; `reward` is what the environment paid for it.
    Done {
        /// Reward of the step, higher is better.
        reward: f64,
    },
    /// Not carried out, because the guard or the mode forbids it.
    Withheld {
        /// Which rule, in one sentence.
        reason: String,
    },
    /// Tried and failed.
    Failed {
        /// The executor's error.
        reason: String,
    },
}
