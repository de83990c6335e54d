//! Scripted cases beside the swarm: two members, a hub, a witness, a network, and what a test does to them step by step.
//! One file for each layer.

mod cluster;
mod damage;
mod fixture;
mod hub;
mod long;
mod matrix;
mod orderly;
mod recovery;
mod replication;
mod seeding;
mod store_model;
mod witness;
