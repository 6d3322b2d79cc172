//! The last layer: up to six prefix codes for a block, and for each fifty symbols the one that is best for them.

use crate::bits::BitWriter;
use crate::move_to_front::Symbols;
use crate::prefix_code::{self, Lengths, MAX_SYMBOLS, codes, write_lengths};

/// Symbols that share a code.
const GROUP: usize = 50;
/// Codes are fitted to the groups that chose them, and groups choose again. libbz2 does so four times; more gain nothing.
const ROUNDS: usize = 4;

/// A vector with a place for each table.
type ByTable = [u16; 8];

/// The codes of a block and which group has which.
#[derive(Debug)]
pub(crate) struct Tables {
    lengths: Vec<Lengths>,
    selectors: Vec<u8>,
}

/// Chooses codes for a block's symbols: as many as make the block smaller of two numbers that are mostly best.
pub(crate) fn choose(symbols: &Symbols) -> Tables {
    let more = usual_tables(symbols.symbols.len());
    let [(more, bits), (fewer, fewer_bits)] = [more, more - 1].map(|tables| fit(first_guess(symbols, tables), symbols));
    if fewer_bits < bits { fewer } else { more }
}

/// Fits tables to the groups that choose them, several times over; and how many bits the block takes then.
fn fit(mut tables: Tables, symbols: &Symbols) -> (Tables, u64) {
    let mut bits = 0;
    let mut frequencies = vec![[0u32; MAX_SYMBOLS]; tables.lengths.len()];
    for _ in 0..ROUNDS {
        let costs = by_symbol(&tables.lengths);
        frequencies.fill([0; MAX_SYMBOLS]);
        tables.selectors.clear();
        for group in symbols.symbols.chunks(GROUP) {
            let selector = cheapest(&costs, group, tables.lengths.len());
            tables.selectors.push(selector as u8);
            group.iter().for_each(|symbol| frequencies[selector][usize::from(*symbol)] += 1);
        }
        for (lengths, frequencies) in tables.lengths.iter_mut().zip(&frequencies) {
            *lengths = prefix_code::lengths(&frequencies[..symbols.alphabet_size]);
        }
        bits = frequencies.iter().zip(&tables.lengths).map(|(table, lengths)| bits_of(table, lengths)).sum();
    }
    let mut head = BitWriter::default();
    tables.write_head(symbols.alphabet_size, &mut head);
    (tables, bits + 8 * head.finish().len() as u64)
}

fn bits_of(frequencies: &[u32; MAX_SYMBOLS], lengths: &Lengths) -> u64 {
    frequencies.iter().zip(lengths).map(|(frequency, length)| u64::from(*frequency) * u64::from(*length)).sum()
}

/// How many codes may pay for being written, by the number of symbols. libbz2 takes the six that the format has from 2,400 on;
/// for some hundred lines, whose codes are alike, the sixth is seldom worth its description.
fn usual_tables(symbols: usize) -> usize {
    match symbols {
        0..600 => 3,
        600..2_400 => 4,
        2_400..20_000 => 5,
        20_000.. => 6,
    }
}

/// Tables each of which is cheap for a range of symbols that occur as often as those of the others.
fn first_guess(symbols: &Symbols, tables: usize) -> Tables {
    const CHEAP: u8 = 0;
    const DEAR: u8 = 15;

    let mut frequencies = [0usize; MAX_SYMBOLS];
    symbols.symbols.iter().for_each(|symbol| frequencies[usize::from(*symbol)] += 1);
    let (mut left, mut start) = (symbols.symbols.len(), 0);
    let mut lengths = Vec::with_capacity(tables);
    for table in 0..tables {
        let share = left / (tables - table);
        let (mut end, mut taken) = (start, 0);
        while taken < share && end < symbols.alphabet_size {
            taken += frequencies[end];
            end += 1;
        }
        // Every other range gives one symbol back: else those at the end are left with none.
        if table % 2 == 1 && table + 1 < tables && end > start + 1 {
            end -= 1;
            taken -= frequencies[end];
        }
        let mut guess = [DEAR; MAX_SYMBOLS];
        guess[start..end].fill(CHEAP);
        lengths.push(guess);
        (left, start) = (left - taken, end);
    }
    Tables { lengths, selectors: Vec::new() }
}

/// The same lengths with all tables' beside each other, so that a group's cost in all of them is a sum of vectors.
fn by_symbol(lengths: &[Lengths]) -> [ByTable; MAX_SYMBOLS] {
    let mut costs = [[0; 8]; MAX_SYMBOLS];
    for (table, lengths) in lengths.iter().enumerate() {
        for (cost, length) in costs.iter_mut().zip(lengths) {
            cost[table] = u16::from(*length);
        }
    }
    costs
}

/// The table in which a group has the fewest bits.
fn cheapest(costs: &[ByTable; MAX_SYMBOLS], group: &[u16], tables: usize) -> usize {
    let mut sums: ByTable = [0; 8];
    for symbol in group {
        let cost = &costs[usize::from(*symbol)];
        for (sum, bits) in sums.iter_mut().zip(cost) {
            *sum += bits;
        }
    }
    (0..tables).min_by_key(|table| sums[*table]).unwrap_or(0)
}

impl Tables {
    /// Writes the tables and the symbols in them.
    pub(crate) fn write(&self, symbols: &Symbols, out: &mut BitWriter) {
        self.write_head(symbols.alphabet_size, out);
        let codes: Vec<_> = self.lengths.iter().map(|lengths| codes(lengths, symbols.alphabet_size)).collect();
        for (group, selector) in symbols.symbols.chunks(GROUP).zip(&self.selectors) {
            let (lengths, codes) = (&self.lengths[usize::from(*selector)], &codes[usize::from(*selector)]);
            for symbol in group {
                out.write(u32::from(lengths[usize::from(*symbol)]), codes[usize::from(*symbol)]);
            }
        }
    }

    fn write_head(&self, alphabet_size: usize, out: &mut BitWriter) {
        out.write(3, self.lengths.len() as u32);
        // 18,002 of the largest block: 15 bits hold it.
        out.write(15, self.selectors.len() as u32);
        self.write_selectors(out);
        self.lengths.iter().for_each(|lengths| write_lengths(&lengths[..alphabet_size], out));
    }

    /// Each selector as the number of others since it was last there, in ones that a zero ends.
    fn write_selectors(&self, out: &mut BitWriter) {
        let mut recent: Vec<u8> = (0..self.lengths.len() as u8).collect();
        for selector in &self.selectors {
            let place = recent.iter().take_while(|other| *other != selector).count();
            recent[..=place].rotate_right(1);
            out.write(place as u32 + 1, (1 << (place + 1)) - 2);
        }
    }
}
