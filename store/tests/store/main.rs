//! The store as its users see it: what goes in comes out, across segments, restarts, crashes and damage.

mod damage;
mod evidence;
mod feedback;
mod fixtures;
mod queries;
mod records;
mod state;
