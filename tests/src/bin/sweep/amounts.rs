//! How many trials of each kind a sweep has.

use semel_tests::sweep::{Configuration, Route};

/// Trials on one configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amounts {
    /// With one kill.
    pub kills: usize,
    /// With two.
    pub double_kills: usize,
    /// With a zombie.
    pub pauses: usize,
    /// With a reply of the store lost.
    pub store_replies: usize,
    /// With a reply of the broker lost.
    pub broker_replies: usize,
    /// With a store that dies.
    pub stores: usize,
    /// With a broker that dies.
    pub brokers: usize,
}

impl Amounts {
    /// Those of a whole sweep, which takes about an hour. Files are cheap; consumers of brokers take
    /// seconds to start.
    pub fn of(Configuration { store, route }: Configuration) -> Self {
        let shared = store.is_shared();
        // One host at a time can have redb.
        let if_shared = |amount: usize| if shared { amount } else { 0 };
        match route {
            Route::File => Self {
                kills: 110,
                double_kills: 40,
                pauses: if_shared(24),
                store_replies: if_shared(24),
                stores: if_shared(6),
                ..Self::default()
            },
            Route::Http => Self {
                kills: 50,
                double_kills: 16,
                store_replies: if_shared(6),
                ..Self::default()
            },
            Route::RocketMq => Self {
                kills: 50,
                double_kills: 16,
                pauses: if_shared(6),
                store_replies: if_shared(4),
                broker_replies: 4,
                brokers: 1,
                ..Self::default()
            },
            // Kafka takes ten seconds to notice that a host is dead.
            Route::Kafka => Self {
                kills: 36,
                double_kills: 12,
                pauses: if_shared(4),
                brokers: 1,
                ..Self::default()
            },
            Route::RabbitMq => Self {
                kills: 36,
                double_kills: 12,
                pauses: if_shared(4),
                broker_replies: 4,
                brokers: 1,
                ..Self::default()
            },
            Route::Transactional => Self {
                kills: 36,
                double_kills: 12,
                pauses: if_shared(4),
                ..Self::default()
            },
        }
    }

    /// So many percent of them, but some of each kind.
    pub fn percent(self, percent: usize) -> Self {
        let part = |amount: usize| (amount * percent).div_ceil(100);
        Self {
            kills: part(self.kills),
            double_kills: part(self.double_kills),
            pauses: part(self.pauses),
            store_replies: part(self.store_replies),
            broker_replies: part(self.broker_replies),
            stores: part(self.stores),
            brokers: part(self.brokers),
        }
    }

    /// All together.
    pub fn total(self) -> usize {
        let replies = self.store_replies + self.broker_replies;
        let servers = self.stores + self.brokers;
        self.kills + self.double_kills + self.pauses + replies + servers
    }
}
