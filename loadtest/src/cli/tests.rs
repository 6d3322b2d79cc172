use clap::CommandFactory;
use rstest::rstest;

use super::*;

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

fn run(arguments: &[&str]) -> Result<Box<RunArgs>, String> {
    let cli = Cli::try_parse_from([&["loadtest", "run"], arguments].concat()).map_err(|error| error.to_string())?;
    match cli.command {
        Command::Run(run) => Ok(run),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn omitted_options_have_their_documented_defaults() {
    let run = run(&[]).unwrap();
    assert_eq!((run.rate.text.as_str(), run.duration), ("100", Duration::from_secs(60)));
    let load = &run.load;
    assert_eq!((load.connections, load.max_connections, load.players.seed), (64, 1_000, 1));
    let players = &load.players;
    assert_eq!((players.events_per_post.fewest, players.events_per_post.most, players.bad), (20, 20, 0));
    assert_eq!((load.timeout, load.max_lag), (Duration::from_secs(30), Duration::from_millis(20)));
}

#[rstest]
#[case(&["--rate", "1..5"], true)]
#[case(&["--rate", "0"], false)]
#[case(&["--duration", "1ms"], true)]
#[case(&["--duration", "0s"], false)]
#[case(&["--duration", "24h"], true)]
#[case(&["--duration", "24h 1ms"], false)]
#[case(&["--duration", "60"], false)]
#[case(&["--connections", "1"], true)]
#[case(&["--connections", "0"], false)]
#[case(&["--connections", "100001"], false)]
#[case(&["--events-per-post", "9999"], true)]
#[case(&["--events-per-post", "10000"], false)]
#[case(&["--events-per-post", "1..50"], true)]
#[case(&["--events-per-post", "50..1"], false)]
#[case(&["--events-per-post", "0..1"], false)]
#[case(&["--bad", "100%"], true)]
#[case(&["--bad", "101%"], false)]
#[case(&["--run-id", "aZ09"], true)]
#[case(&["--run-id", "a-b"], false)]
#[case(&["--run-id", ""], false)]
#[case(&["--run-id", "0123456789012345678901234567890123456789"], true)]
#[case(&["--run-id", "01234567890123456789012345678901234567890"], false)]
#[case(&["--speed", "2"], false)]
#[case(&["--speed", "2", "--replay", "x"], true)]
#[case(&["--speed", "0", "--replay", "x"], false)]
#[case(&["--insecure", "--cacert", "x"], false)]
fn bounds(#[case] arguments: &[&str], #[case] is_right: bool) {
    assert_eq!(run(arguments).is_ok(), is_right, "{:?}", run(arguments));
}

#[test]
fn shares_are_kept_to_a_millionth() {
    assert_eq!(run(&["--bad", "0.1%"]).unwrap().load.players.bad, 1_000);
    assert_eq!(run(&["--bad", "0.000001"]).unwrap().load.players.bad, 1);
}
