//! MB/s of one core: `ring`, and every engine that this CPU has, on messages of 512 KiB. Run by hand:
//! `cargo run --release -p lanes --example hash_throughput`. All ways take turns in each round, so that whatever else
//! the machine does disturbs them alike; the table shows medians, and the fastest round in brackets.

use std::fs::read_to_string;
use std::hint::black_box;
use std::time::Instant;

use lanes::{Engine, digest_all};

/// Bytes of a message: a chunk of the product.
const LENGTH: usize = 512 << 10;
/// A full set of the widest lanes, and a number that fills no lanes evenly.
const COUNTS: [usize; 2] = [16, 40];
const ROUNDS: usize = 15;

/// One way to hash, and the MB/s of each round for each of the counts.
struct Way {
    name: String,
    engine: Engine,
    rates: [Vec<f64>; COUNTS.len()],
}

fn main() {
    print_machine();
    let bytes = noise(COUNTS[1] * LENGTH);
    let messages: Vec<&[u8]> = bytes.chunks(LENGTH).collect();
    let mut ways = ways();
    for _ in 0..ROUNDS {
        for way in &mut ways {
            for (rates, count) in way.rates.iter_mut().zip(COUNTS) {
                rates.push(rate(way.engine, &messages[..count]));
            }
        }
    }
    print_table(&mut ways);
    println!("load after: {}", load());
}

/// `Engine::SINGLE` is `ring`, so it is always among them.
fn ways() -> Vec<Way> {
    let name = |engine: Engine| format!("{engine} ({})", engine.lanes());
    Engine::available()
        .into_iter()
        .rev()
        .map(|engine| Way { name: name(engine), engine, rates: Default::default() })
        .collect()
}

fn rate(engine: Engine, messages: &[&[u8]]) -> f64 {
    let started = Instant::now();
    black_box(digest_all(engine, black_box(messages)));
    (messages.len() * LENGTH) as f64 / started.elapsed().as_secs_f64() / 1e6
}

fn print_table(ways: &mut [Way]) {
    println!("{:12} {:>20} {:>20} {:>10} {:>12}", "engine", "16 messages", "40 messages", "x single", "a set costs");
    let mut single = None;
    for way in ways {
        let [(sixteen, best_sixteen), (forty, best_forty)] = way.rates.each_mut().map(|rates| middle_and_best(rates));
        let single = *single.get_or_insert(sixteen);
        // how many single messages take as long as one set of lanes, full or not
        let cost = way.engine.lanes() as f64 * single / sixteen;
        let cell = |middle: f64, best: f64| format!("{middle:.0} ({best:.0}) MB/s");
        println!(
            "{:12} {:>20} {:>20} {:>10.2} {cost:>12.2}",
            way.name,
            cell(sixteen, best_sixteen),
            cell(forty, best_forty),
            sixteen / single
        );
    }
}

fn middle_and_best(rates: &mut [f64]) -> (f64, f64) {
    rates.sort_by(f64::total_cmp);
    (rates[rates.len() / 2], rates[rates.len() - 1])
}

fn print_machine() {
    let about = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| about.lines().find(|line| line.starts_with(name)).unwrap_or("unknown").to_owned();
    println!("{}", field("model name"));
    println!("sha_ni: {}", field("flags").split_whitespace().any(|flag| flag == "sha_ni"));
    println!("best engine: {}", Engine::best());
    println!("load before: {}", load());
}

fn load() -> String {
    read_to_string("/proc/loadavg").unwrap_or_else(|_| "unknown".to_owned()).trim().to_owned()
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}
