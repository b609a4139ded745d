//! What one process leaves for the next: answers that are current, and nothing else.

use std::io::Read;
use std::time::Duration;

use super::{Ground, from_disk, from_memory, on_disk, plain, query, stored};

/// How often something is looked for that another thread or process does.
const WAITS: usize = 5000;

/// Of every kind that has other addresses, hashes and orders of maps in another process.
const QUERIES: [&str; 8] = [
    "SELECT a FROM f ORDER BY a",
    "SELECT count(*), sum(a), avg(a), max(lower(a::varchar)) FROM f",
    "SELECT a, row_number() OVER (ORDER BY a DESC) AS r, lag(a, 1, -1) OVER (ORDER BY a) AS l FROM f",
    "SELECT x.a, y.a AS b FROM f x JOIN f y ON x.a < y.a WHERE x.a IN (1, 2, 3, 4) AND y.a > 0.5",
    "SELECT a, to_timestamp(a) AS t, [a, NULL] AS l, named_struct('a', a) AS s, a * 1.10 AS d FROM f",
    "SELECT a FROM f WHERE a < 0",
    "SELECT a FROM f LIMIT 100",
    "SELECT current_date IS NULL AS n, arrow_cast(a, 'Dictionary(Int32, Utf8)') AS d, arrow_cast(a, 'Utf8View') AS v FROM f",
];

#[tokio::test]
async fn what_a_process_computed_the_next_one_is_given_and_no_longer_than_it_is_current() {
    let ground = Ground::new();
    let first = ground.process(&QUERIES);
    let (ctx, _) = ground.session().await;
    for ((outcome, rows), text) in first.iter().zip(QUERIES) {
        assert_eq!(outcome, "stored", "{text}");
        assert_eq!(*rows, plain(&ctx, text).await, "{text}");
    }
    assert_eq!(ground.files(".answer").len(), QUERIES.len());
    for ((outcome, rows), (first, text)) in ground.process(&QUERIES).iter().zip(first.iter().zip(QUERIES)) {
        assert_eq!((outcome.as_str(), rows), ("hit on disk", &first.1), "{text}");
    }
    let text = "SELECT a FROM f ORDER BY a";
    let twice = ground.process(&[text, text]);
    assert_eq!(twice, [from_disk(&["1", "2"]), from_memory(&["1", "2"])], "it is in memory then");
    // Added; as many bytes; as many bytes at the same time and so with the same size and time, but another file; removed.
    ground.write("2.csv", "30\n", 50);
    assert_eq!(ground.process(&[text]), [stored(&["1", "2", "30"])]);
    assert_eq!(ground.process(&[text]), [from_disk(&["1", "2", "30"])]);
    ground.write("2.csv", "31\n", 40);
    assert_eq!(ground.process(&[text]), [stored(&["1", "2", "31"])]);
    std::fs::remove_file(ground.data().join("2.csv")).unwrap();
    assert_eq!(ground.process(&[text]), [stored(&["1", "2"])]);
    assert_eq!(ground.process(&[text]), [from_disk(&["1", "2"])]);
    std::fs::remove_file(ground.data().join("1.csv")).unwrap();
    assert_eq!(ground.process(&[text]).remove(0).1, Vec::<String>::new());
}

#[tokio::test]
async fn a_file_that_was_written_this_moment_is_not_trusted_by_any_process() {
    let ground = Ground::new();
    let text = "SELECT a FROM f";
    assert_eq!(ground.process(&[text]), [stored(&["1", "2"])]);
    ground.write("1.csv", "7\n", 0);
    let (outcome, rows) = ground.process(&[text]).remove(0);
    assert!(outcome.contains("a moment ago"), "{outcome}");
    assert_eq!(rows, ["7"]);
}

/// Killed in the middle of writing, a process leaves half a file. It is nobody's answer, and the next one clears it away.
#[tokio::test]
async fn a_process_that_is_killed_while_it_writes_leaves_nothing_that_is_read() {
    let ground = Ground::new();
    let rows: String = (0..1200).map(|row| format!("{row}\n")).collect();
    ground.write("1.csv", &rows, 100);
    let text = "SELECT x.a * 7919 % 1000003 AS p, y.a * 104729 % 999983 AS q FROM f x CROSS JOIN f y";
    let ask = format!("-- count {text}");
    let mut child = ground.command(&[&ask, "-- wait 600000"]).spawn().unwrap();
    let is_half = |file: &std::path::PathBuf| file.metadata().is_ok_and(|file| file.len() > 100_000);
    while !ground.files(".tmp").iter().any(is_half) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it wrote");
        assert!(ground.files(".answer").is_empty(), "it was written before anybody saw it");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((ground.files(".tmp").len(), ground.files(".answer").len()), (1, 0));
    let count = format!("SELECT count(*), sum(p), sum(q) FROM ({text})");
    let (ctx, _) = ground.session().await;
    let expected = plain(&ctx, &count).await;
    let all = (1200 * 1200).to_string();
    assert_eq!(ground.process(&[&ask]), [stored(&[&all])]);
    assert_eq!((ground.files(".tmp").len(), ground.files(".answer").len()), (0, 1), "the leftover is gone");
    assert_eq!(ground.process(&[&ask]), [from_disk(&[&all])]);
    assert_eq!(plain(&ctx, &count).await, expected);
}

/// Another process is writing: what it has not finished is no leftover.
#[tokio::test]
async fn a_live_process_keeps_what_it_writes() {
    let ground = Ground::new();
    std::fs::create_dir(ground.answers()).unwrap();
    let half = ground.answers().join("00000000000000000000000000000001-1-1.tmp");
    let held = std::fs::File::create(&half).unwrap();
    held.lock().unwrap();
    ground.process(&["SELECT a FROM f"]);
    assert!(half.exists(), "somebody is writing it");
    drop(held);
    ground.process(&["SELECT a + 1 FROM f"]);
    assert!(!half.exists(), "nobody is");
}

/// A disk that takes no more, as the system says it: the limit on the size of files is met in the middle of a file. The query has
/// its rows, and nothing is left behind.
#[cfg(unix)]
#[tokio::test]
async fn an_answer_that_the_disk_does_not_take_is_not_kept() {
    let ground = Ground::new();
    let rows: String = (0..300).map(|row| format!("{row}\n")).collect();
    ground.write("1.csv", &rows, 100);
    let text = "-- count SELECT x.a * 7919 % 1000003 AS p FROM f x CROSS JOIN f y";
    let refused = "SELECT reason, value FROM slipstream.cache_stats WHERE tier = 'disk' AND name = 'refused'";
    let command = ground.command(&[text, "-- wait 1000", refused]);
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 20; exec \"$0\" \"$@\""]).arg(command.get_program());
    limited.args(command.get_args());
    for (name, value) in command.get_envs() {
        limited.env(name, value.unwrap());
    }
    let output = limited.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("answer: stored\t90000\n"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("size | 1.0"), "{said}");
    assert_eq!((ground.files(".tmp").len(), ground.files(".answer").len()), (0, 0));
    assert_eq!(ground.process(&[text]), [stored(&["90000"])]);
    assert_eq!(ground.process(&[text]), [from_disk(&["90000"])]);
}

/// Several processes ask, compute, drop and read in one directory. Each is right at each moment.
#[tokio::test]
async fn processes_that_share_a_directory_do_not_disturb_each_other() {
    let ground = Ground::new();
    let texts: Vec<String> = (0..6).map(|number| format!("SELECT a + {number} FROM f ORDER BY 1")).collect();
    let mut script: Vec<&str> = Vec::new();
    for round in 0..8 {
        script.extend(texts.iter().map(String::as_str));
        script.push(if round % 3 == 2 {
            "SELECT slipstream_cache_clear()"
        } else {
            "SET slipstream.cache.max_bytes = 0"
        });
        script.push("SET slipstream.cache.max_bytes = '256MB'");
    }
    let children: Vec<_> = (0..4).map(|_| ground.command(&script).spawn().unwrap()).collect();
    for mut child in children {
        let (mut text, mut errors) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert!(child.wait().unwrap().success(), "{text}{errors}");
        let answers = text.lines().filter_map(|line| line.split_once("answer: ").map(|(_, answer)| answer));
        let mut asked = 0;
        for (answer, statement) in answers.zip(&script) {
            let Some(number) = texts.iter().position(|text| text == statement) else { continue };
            let rows: Vec<&str> = answer.split('\t').skip(1).collect();
            let mut expected = [(number + 1).to_string(), (number + 2).to_string()];
            expected.sort_unstable();
            assert_eq!(rows, expected, "{statement}");
            asked += 1;
        }
        assert_eq!(asked, 48);
    }
    assert_eq!(ground.files(".tmp").len(), 0);
    // What is left is whole.
    let (ctx, _) = ground.session().await;
    let left = ground.files(".answer").len() as f64;
    query(&ctx, "SELECT key FROM slipstream.cache").await.unwrap();
    assert_eq!(on_disk(&ctx, "entries", "").await, left);
    assert_eq!(on_disk(&ctx, "evicted", "corrupt").await, 0.0);
}

/// The end of a session waits for what is to be written; one that is still open has written it a moment later.
#[tokio::test]
async fn what_another_live_process_wrote_is_found_without_a_list() {
    let ground = Ground::new();
    let (ctx, slipstream) = ground.session().await;
    assert_eq!(super::ask(&ctx, &slipstream, "SELECT a FROM f WHERE a = 1").await, stored(&["1"]));
    assert_eq!(ground.process(&["SELECT a FROM f"]), [stored(&["1", "2"])]);
    assert_eq!(super::ask(&ctx, &slipstream, "SELECT a FROM f").await, from_disk(&["1", "2"]));
    for _ in 0..WAITS {
        if ground.files(".answer").len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ground.process(&["SELECT a FROM f WHERE a = 1"]), [from_disk(&["1"])]);
}
