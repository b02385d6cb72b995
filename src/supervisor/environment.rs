//! The variables that a worker is started with.
//!
//! Pure: what the primary has and what is configured in, what the worker gets out.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::supervisor::command::{InheritedVariables, User, WorkerCommand};

/// Variables that concern the primary alone, so that no worker inherits them: a worker that told systemd that
/// it is ready, or took the primary's descriptors for its own, would do harm. `WEB_CONCURRENCY` is
/// how many workers there are, and each would start as many again. `JOURNAL_STREAM` describes the
/// primary's own output. `INVOCATION_ID` stays: workers are part of the same run of the service.
const OWN: [&str; 17] = [
    "FDSTORE",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "MAINPID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
    "NOTIFY_SOCKET",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "WEB_CONCURRENCY",
];
const OWN_PREFIX: &[u8] = b"STICKY_LB_";
/// Concerns workers alone: what the demo logs.
const NOT_OWN: &str = "STICKY_LB_LOG";

/// The variables of [`InheritedVariables::Few`].
const FEW: [&str; 9] = ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"];
const FEW_PREFIX: &[u8] = b"LC_";

/// The environment of a worker: the primary's as far as it is inherited, then what is configured,
/// then what every worker is `given`. The last wins: a worker whose `PORT` isn't the port that its
/// clients come in by, or that takes another slot for its own, could only be wrong.
pub fn assemble(
    command: &WorkerCommand,
    primarys: impl Iterator<Item = (OsString, OsString)>,
    given: impl IntoIterator<Item = (&'static str, String)>,
) -> BTreeMap<OsString, OsString> {
    let mut variables: BTreeMap<_, _> =
        primarys.filter(|(name, _)| is_inherited(name, &command.inherited)).collect();
    if command.directory.is_some() {
        // They name where the primary is and was.
        variables.remove(OsStr::new("PWD"));
        variables.remove(OsStr::new("OLDPWD"));
    }
    if let Some(user) = &command.user {
        describe(user, &mut variables);
    }
    variables.extend(command.environment.iter().cloned());
    variables.extend(given.into_iter().map(|(name, value)| (name.into(), value.into())));
    variables
}

fn is_inherited(name: &OsStr, inherited: &InheritedVariables) -> bool {
    let bytes = name.as_bytes();
    let prefixed = bytes.starts_with(OWN_PREFIX) && name != NOT_OWN;
    if prefixed || OWN.iter().any(|own| name == *own) {
        return false;
    }
    match inherited {
        InheritedVariables::All => true,
        InheritedVariables::Few => {
            bytes.starts_with(FEW_PREFIX) || FEW.iter().any(|few| name == *few)
        }
        InheritedVariables::Without(prefixes) => {
            !prefixes.iter().any(|prefix| bytes.starts_with(prefix.as_bytes()))
        }
    }
}

/// Unknown ones are left out: the primary's would be another user's.
fn describe(user: &User, variables: &mut BTreeMap<OsString, OsString>) {
    let name = user.name.as_ref().map(OsString::from);
    let home = user.home.as_ref().map(OsString::from);
    for (variable, value) in [("USER", name.clone()), ("LOGNAME", name), ("HOME", home)] {
        match value {
            Some(value) => variables.insert(variable.into(), value),
            None => variables.remove(OsStr::new(variable)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Primary's, configured and resulting variables, as `A=1 B=2`.
    fn assembled(command: &WorkerCommand, primarys: &str) -> String {
        let pairs = |text: &str| -> Vec<(OsString, OsString)> {
            let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
            pairs.map(|(name, value)| (name.into(), value.into())).collect()
        };
        let given = [("PORT", "3000".to_owned()), ("STICKY_LB_SLOT", "2".to_owned())];
        let variables = assemble(command, pairs(primarys).into_iter(), given);
        let texts = variables
            .iter()
            .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()));
        texts.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_worker_inherits_nothing_that_concerns_the_primary_alone() {
        let own = OWN.map(|name| format!("{name}=1")).join(" ");
        let its = "STICKY_LB_CHANNEL=7 STICKY_LB_LOG=debug STICKY_LB_LOGS=1";
        let primarys = format!("A=1 INVOCATION_ID=x PWD=/p {its} {own}");
        assert_eq!(
            assembled(&WorkerCommand::default(), &primarys),
            "A=1 INVOCATION_ID=x PORT=3000 PWD=/p STICKY_LB_LOG=debug STICKY_LB_SLOT=2",
        );
    }

    #[test]
    fn what_is_inherited_can_be_chosen() {
        let primarys = "AWS_KEY=1 AWS_ID=2 HOMER=3 LC_ALL=C PATH=/bin TZ=UTC XAWS_=4";
        for (inherited, expected) in [
            (InheritedVariables::All, "AWS_ID=2 AWS_KEY=1 HOMER=3 LC_ALL=C PATH=/bin"),
            (InheritedVariables::Few, "LC_ALL=C PATH=/bin"),
            (
                InheritedVariables::Without(vec!["AWS_".to_owned(), "HOME".to_owned()]),
                "LC_ALL=C PATH=/bin",
            ),
        ] {
            let xaws = if inherited == InheritedVariables::Few { "" } else { " XAWS_=4" };
            let command = WorkerCommand { inherited, ..WorkerCommand::default() };
            let expected = format!("{expected} PORT=3000 STICKY_LB_SLOT=2 TZ=UTC{xaws}");
            assert_eq!(assembled(&command, primarys), expected);
        }
    }

    #[test]
    fn what_is_configured_overrides_what_is_inherited_and_nothing_that_is_given() {
        let environment = [("A", "new"), ("NOTIFY_SOCKET", "/own"), ("PORT", "1")];
        let command = WorkerCommand {
            environment: environment.map(|(name, value)| (name.into(), value.into())).into(),
            ..WorkerCommand::default()
        };
        assert_eq!(
            assembled(&command, "A=old NOTIFY_SOCKET=/primarys PORT=2"),
            "A=new NOTIFY_SOCKET=/own PORT=3000 STICKY_LB_SLOT=2",
        );
    }

    #[test]
    fn a_worker_of_another_user_finds_that_users_name_and_home() {
        let user = |name: Option<&str>, home: Option<&str>| User {
            name: name.map(str::to_owned),
            home: home.map(Into::into),
            uid: 33,
            gid: 33,
            groups: Vec::new(),
        };
        let primarys = "HOME=/root LOGNAME=root USER=root";
        for (user, expected) in [
            (
                user(Some("www"), Some("/srv")),
                "HOME=/srv LOGNAME=www PORT=3000 STICKY_LB_SLOT=2 USER=www",
            ),
            (user(None, None), "PORT=3000 STICKY_LB_SLOT=2"),
        ] {
            let command = WorkerCommand { user: Some(user), ..WorkerCommand::default() };
            assert_eq!(assembled(&command, primarys), expected);
        }
    }

    #[test]
    fn a_worker_elsewhere_is_not_told_the_primarys_directory() {
        let command = WorkerCommand { directory: Some("/srv".into()), ..WorkerCommand::default() };
        assert_eq!(assembled(&command, "OLDPWD=/a PWD=/b"), "PORT=3000 STICKY_LB_SLOT=2");
    }
}
