//! Whose turn it is: of clients that wait, that one's whose texts have taken the fewest tokens.
//!
//! After Sheng et al., "Fairness in Serving Large Language Models" (2024): a counter of tokens for each client. Who comes
//! back after a pause has gathered no right to more than others.

use std::collections::HashMap;

/// What a client has had.
#[derive(Debug, Default)]
struct Account {
    tokens: u64,
    /// Its requests that wait or run.
    requests: usize,
}

/// The accounts of all clients that wait or run.
#[derive(Debug, Default)]
pub(super) struct Clients(HashMap<Option<String>, Account>);

impl Clients {
    /// A request of a client has come.
    pub(super) fn enter(&mut self, client: &Option<String>) {
        let least = self.0.values().map(|account| account.tokens).min();
        let account = self.0.entry(client.clone()).or_insert(Account {
            tokens: least.unwrap_or(0),
            requests: 0,
        });
        account.requests += 1;
    }

    /// One of its requests has ended.
    pub(super) fn leave(&mut self, client: &Option<String>) {
        if let Some(account) = self.0.get_mut(client) {
            account.requests -= 1;
            if account.requests == 0 {
                self.0.remove(client);
            }
        }
    }

    /// Its requests have taken so many tokens.
    pub(super) fn charge(&mut self, client: &Option<String>, tokens: usize) {
        if let Some(account) = self.0.get_mut(client) {
            account.tokens += tokens as u64;
        }
    }

    /// What it has had.
    pub(super) fn tokens(&self, client: &Option<String>) -> u64 {
        self.0.get(client).map_or(0, |account| account.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_later_has_no_claim_to_what_others_had() {
        let name = |name: &str| Some(name.to_owned());
        let mut clients = Clients::default();
        clients.enter(&name("a"));
        clients.charge(&name("a"), 100);
        clients.enter(&None);
        assert_eq!(clients.tokens(&None), 100);
        clients.charge(&None, 5);
        clients.enter(&name("a"));
        assert!(clients.tokens(&name("a")) < clients.tokens(&None));
        clients.leave(&name("a"));
        clients.leave(&name("a"));
        assert_eq!(clients.tokens(&name("a")), 0);
        // Who has gone is charged nothing, and comes back as others are.
        clients.charge(&name("a"), 7);
        clients.enter(&name("a"));
        assert_eq!(clients.tokens(&name("a")), 105);
    }
}
