//! The table as a page of the documentation.

use std::thread;
use std::time::Duration;

use semel_tests::matrix::Report;
use semel_tests::servers::store::StoreKind;

/// The page.
pub fn write(report: &Report, messages: usize, kills: usize, took: Duration) -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let durability: String = StoreKind::ALL
        .iter()
        .map(|store| format!("| {store} | {} |\n", store.durability()))
        .collect();
    format!(
        "{HEAD}\n\
         ## Result\n\n\
         {messages} messages and {kills} kills a cell; {minutes:.0} minutes on {cores} cores.\n\n\
         {table}\n\n\
         Durability of a commit:\n\n\
         | store | setting |\n|---|---|\n{durability}",
        minutes = took.as_secs_f64() / 60.0,
        table = report.markdown(),
    )
}

const HEAD: &str = "\
# The matrix

`make matrix` writes this page. Do not edit it.

Each cell is a source with a store, both real servers, or the library that stands for one. The
example `points` handles orders, of which 30 % are duplicates: of these, half are equal in every
byte, and half were sent again under a new message id.

- **messages/s**: what one host handles that nobody disturbs, duplicates included, from its first
  outgoing message to its last. Servers, host and clients share the machine's cores.
- **killed**: how often the host died of SIGKILL at a random moment of its work, and as often
  again, nearly, while it was starting.
- **result**: exact, if every user's balance, every outgoing message and the sequence of balances
  that they tell are what a ledger outside of the system says.
- **three hosts**: three hosts of one group share the topic and the store. Each is restarted with
  SIGTERM while messages come in, then one is killed. The result is judged in the same way.
- **copies**: outgoing messages that were published again under the same id, since the host that
  published them first died before it could confirm that.
";
