//! What `rdask explain` prints: an [`Explanation`] as sentences, or as one JSON document.

use rdask::FailureKind;
use rdask::explain::{Explanation, InputState, Lack, Moving, ProgramState, Why};
use serde_json::{Value, json};

/// One or more lines for people.
pub(crate) fn text(explanation: &Explanation) -> String {
    let task = explanation.task;
    let name = match (&explanation.function[..], explanation.run) {
        ("", _) => task.to_string(),
        (function, 0 | 1) => format!("{task} {function}"),
        (function, run) => format!("{task} {function} (run {run})"),
    };
    let mut lines = vec![format!("{name}: {}", sentence(&explanation.why))];
    lines.extend(details(&explanation.why).into_iter().map(|line| format!("  {line}")));
    lines.join("\n") + "\n"
}

/// One JSON document. Fields are added, never changed or removed.
pub(crate) fn json(explanation: &Explanation) -> String {
    let (state, reason) = words(&explanation.why);
    let mut document = json!({
        "schema": "rdask-explain",
        "version": 1,
        "task": explanation.task.to_string(),
        "function": explanation.function,
        "run": explanation.run,
        "state": state,
        "reason": reason,
        "text": sentence(&explanation.why),
        "details": details(&explanation.why),
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut document, numbers(&explanation.why)) {
        all.extend(more);
    }
    format!("{document:#}\n")
}

/// The state of the task, and why it is in it, in a word each.
fn words(why: &Why) -> (&'static str, &'static str) {
    match why {
        Why::Unknown => ("unknown", "unknown"),
        Why::Done { .. } => ("done", "done"),
        Why::Failed(failure) if failure.kind == FailureKind::Cancelled => {
            ("cancelled", "cancelled")
        }
        Why::Failed(_) => ("failed", "failed"),
        Why::Released => ("released", "released"),
        Why::Inputs { .. } => ("waiting", "inputs"),
        Why::Arguments => ("waiting", "arguments"),
        Why::Delay { .. } => ("waiting", "delay"),
        Why::Suspected { .. } => ("waiting", "suspected"),
        Why::NoWorkers => ("ready", "no-workers"),
        Why::Unsuited { .. } => ("ready", "unsuited"),
        Why::Program { .. } => ("ready", "program"),
        Why::NoRoom { .. } => ("ready", "no-room"),
        Why::Behind { .. } => ("ready", "behind"),
        Why::Holder { .. } => ("ready", "holder"),
        Why::Assigned { .. } => ("assigned", "assigned"),
        Why::Put { .. } => ("assigned", "put"),
        Why::Away { .. } => ("waiting", "away"),
    }
}

fn numbers(why: &Why) -> Value {
    match why {
        Why::Inputs { missing, first } => {
            let first: Vec<String> = first.iter().map(|(task, _)| task.to_string()).collect();
            json!({ "missing": missing, "inputs": first })
        }
        Why::Delay { left } | Why::Away { left } => json!({ "left_s": left.as_secs_f64() }),
        Why::Suspected { deaths } => json!({ "deaths": deaths }),
        Why::Unsuited { count, .. } | Why::Program { count, .. } => json!({ "workers": count }),
        Why::NoRoom { processes, ahead, sharers, .. } => {
            json!({ "processes": processes, "ahead": ahead, "sharers": sharers })
        }
        Why::Behind { task } => json!({ "behind": task.to_string() }),
        Why::Holder { process, worker, left } => {
            json!({ "process": process.to_string(), "worker": worker, "left_s": left.as_secs_f64() })
        }
        Why::Assigned { process, worker, node, ahead, slots, missing, fetched, .. } => json!({
            "process": process.to_string(), "worker": worker, "node": node,
            "ahead": ahead, "slots": slots, "missing": missing, "fetched": fetched,
        }),
        Why::Put { process, worker } => {
            json!({ "process": process.to_string(), "worker": worker })
        }
        Why::Failed(failure) => json!({
            "kind": format!("{:?}", failure.kind).to_lowercase(), "message": failure.message,
            "origin": failure.origin.to_string(), "worker": failure.worker, "node": failure.node,
        }),
        _ => json!({}),
    }
}

fn sentence(why: &Why) -> String {
    match why {
        Why::Unknown => {
            "no such task: it was never submitted, or nobody has a handle of it any more".into()
        }
        Why::Done { holders } if holders.is_empty() => {
            "done; its result is small and with the scheduler, or was dropped".into()
        }
        Why::Done { holders } => {
            let holders: Vec<String> = holders.iter().map(ToString::to_string).collect();
            format!("done; process {} has its result", holders.join(", "))
        }
        Why::Failed(failure) if failure.kind == FailureKind::Cancelled => "cancelled".into(),
        Why::Failed(failure) => format!("failed: {failure}"),
        Why::Released => "released: nobody wants its result, so it does not run".into(),
        Why::Inputs { missing, .. } => {
            format!("waits for {}", count(*missing, "result of another task", "results of others"))
        }
        Why::Arguments => "waits for its arguments, which its client is still sending".into(),
        Why::Delay { left } => format!(
            "failed before, or could not reach an input, and is tried again in {:.1} s",
            left.as_secs_f64()
        ),
        Why::Away { left } => format!(
            "its node was given up, and nobody else has the value: it is lost unless the node is back \
             within {:.1} s",
            left.as_secs_f64()
        ),
        Why::Suspected { deaths } => format!(
            "{} while it ran: it runs again once it is known whether it did that, or in a process of \
             its own",
            count(u64::from(*deaths), "process died", "processes died")
        ),
        Why::NoWorkers => {
            "could run, but there are no workers: start some with `rdask worker`".into()
        }
        Why::Unsuited { needs, count: workers, .. } => format!(
            "could run, but none of {} can ever run it: it needs {}",
            count(*workers, "worker", "workers"),
            needed(needs)
        ),
        Why::Program { count: workers, .. } => format!(
            "could run, but its program is not at work yet in any of {} that suit it",
            count(*workers, "worker", "workers")
        ),
        Why::NoRoom { processes, ahead, sharers, resource, threads } => {
            let what = match (resource, threads) {
                (Some(resource), _) => format!("enough {resource}"),
                (None, 0 | 1) => "a slot".to_owned(),
                (None, threads) => format!("{threads} slots at once"),
            };
            let mut text = format!(
                "could run, but none of {} that could run it has {what} free",
                count(*processes, "process", "processes")
            );
            text += &match ahead {
                0 => "; it is next of its client's".to_owned(),
                ahead => format!("; {} first", count(*ahead, "task goes", "tasks go")),
            };
            if *sharers > 0 {
                text += &format!(
                    "; {} with work get equal shares",
                    count(*sharers, "other client", "other clients")
                );
            }
            text
        }
        Why::Behind { task } => {
            format!("could run, but {task} goes first and waits until enough slots are free for it")
        }
        Why::Holder { process, worker, left } => format!(
            "waits for process {process} on {worker}, which has its inputs and is busy; others may \
             have it in {:.0} ms",
            left.as_secs_f64() * 1e3
        ),
        Why::Assigned { process, worker, node, ahead, slots, missing, fetched, moving } => {
            let place = match ahead {
                _ if *missing > 0 => {
                    let inputs = count(*missing, "input", "inputs");
                    format!("waits there for {inputs} still to be made")
                }
                _ if *fetched > 0 => {
                    let inputs = count(*fetched, "input", "inputs");
                    format!("fetches {inputs} from other processes, and starts then")
                }
                ahead if *ahead < u64::from(*slots) => "it runs, or is about to".to_owned(),
                ahead => format!("queued there behind {}", count(*ahead, "task", "tasks")),
            };
            let mut text = format!(
                "with process {process} on {worker} (node {node}) that has {}: {place}",
                count(u64::from(*slots), "slot", "slots")
            );
            text += match moving {
                Some(Moving::Leaving) => {
                    "; the worker is leaving, and what has not started goes elsewhere"
                }
                Some(Moving::AskedBack) => {
                    "; the process was asked to give back what it has not started"
                }
                None => "",
            };
            text
        }
        Why::Put { process, worker } => {
            format!("its value is on its way from the client to process {process} on {worker}")
        }
    }
}

fn details(why: &Why) -> Vec<String> {
    match why {
        Why::Inputs { missing, first } => {
            let state = |state: &InputState| match state {
                InputState::Waiting => "waits itself",
                InputState::Ready => "could run",
                InputState::Assigned => "is with a process",
                InputState::Lost => "was lost, and runs again",
                InputState::Unknown => "is gone",
            };
            let lines = first.iter().map(|(task, of)| format!("{task} {}", state(of)));
            with_rest(lines.collect(), *missing)
        }
        Why::Unsuited { count, workers, .. } => {
            let lacks = |lack: &Lack| match lack {
                Lack::Slots(slots) => {
                    format!("has {}", self::count(u64::from(*slots), "slot", "slots"))
                }
                Lack::Resource(name, 0) => format!("has no {name}"),
                Lack::Resource(name, amount) => format!("has {name}={}", amount_of(*amount)),
                Lack::Name => "has another name".to_owned(),
                Lack::Pool(pool) => format!("is in pool {pool}"),
                Lack::Leaving => "is leaving".to_owned(),
            };
            let lines = workers.iter().map(|(name, lack)| format!("{name} {}", lacks(lack)));
            with_rest(lines.collect(), *count)
        }
        Why::Program { count, workers } => {
            let lines = workers.iter().map(|(name, state)| match state {
                ProgramState::Starting => format!("{name} is starting it"),
                ProgramState::Fetching => format!("{name}'s node is fetching it"),
                ProgramState::Failed(why) => {
                    format!("{name} could not start it, and tries again: {why}")
                }
                ProgramState::GivenUp(why) => format!("{name} can't start it: {why}"),
                ProgramState::Silent => format!("{name} has it, but can't be reached now"),
                ProgramState::Returning => {
                    format!("{name} was given up, is back, and tells what it holds first")
                }
                ProgramState::EndsSooner(left) => format!(
                    "{name} has it, but leaves in {:.0} s, before the task would likely end",
                    left.as_secs_f64()
                ),
                ProgramState::Ending => {
                    format!(
                        "{name} ends its process, in which a task does not stop, and starts another"
                    )
                }
            });
            with_rest(lines.collect(), *count)
        }
        _ => Vec::new(),
    }
}

fn with_rest(mut lines: Vec<String>, all: u64) -> Vec<String> {
    let rest = all.saturating_sub(lines.len() as u64);
    if rest > 0 && !lines.is_empty() {
        lines.push(format!("and {rest} more"));
    }
    lines
}

fn needed(needs: &rdask::explain::TaskOptions) -> String {
    let mut parts = Vec::new();
    if needs.threads > 1 {
        parts.push(format!("{} slots", needs.threads));
    }
    parts.extend(needs.resources.iter().map(|(name, of)| format!("{name}={}", amount_of(*of))));
    if !needs.workers.is_empty() {
        parts.push(format!("a worker named {}", needs.workers.join(" or ")));
    }
    if !needs.pools.is_empty() {
        parts.push(format!("pool {}", needs.pools.join(" or ")));
    }
    if parts.is_empty() { "a worker that is not leaving".to_owned() } else { parts.join(", ") }
}

/// Amounts are counted in ten-thousandths.
fn amount_of(amount: u64) -> f64 {
    amount as f64 / 10_000.0
}

fn count(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(why: Why) -> Explanation {
        Explanation { task: "c3.1.17".parse().unwrap(), function: "f".into(), run: 2, why }
    }

    #[test]
    fn sentences_say_what_is_missing_and_json_says_the_same() {
        let first = vec![("c3.0.4".parse().unwrap(), InputState::Assigned)];
        let waiting = explained(Why::Inputs { missing: 3, first });
        assert_eq!(
            text(&waiting),
            "c3.1.17 f (run 2): waits for 3 results of others\n  c3.0.4 is with a process\n  and 2 more\n"
        );
        let document: Value = serde_json::from_str(&json(&waiting)).unwrap();
        assert_eq!((&document["state"], &document["missing"]), (&json!("waiting"), &json!(3)));
        assert_eq!(document["inputs"], json!(["c3.0.4"]));
        let no_room =
            Why::NoRoom { processes: 2, ahead: 1, sharers: 0, resource: None, threads: 2 };
        let said = text(&explained(no_room));
        assert!(
            said.contains("none of 2 processes that could run it has 2 slots at once free")
                && said.contains("1 task goes first"),
            "{said}"
        );
    }
}
