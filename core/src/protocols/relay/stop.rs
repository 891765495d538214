//! The side that is reached through a relay: accepts circuits from relays that we hold a reservation with.
