//! What is installed beside the program: completions for shells, the manual page.

use std::io;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::failure::Failure;
use crate::cli::flags;
use crate::cli::screen::Screen;

const NAME: &str = "sticky-lb";

/// Prints what a shell reads to complete the command line.
///
/// # Errors
///
/// If it can't be printed.
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut flags::command(), NAME, &mut script);
    print(&script)
}

/// Prints the manual page: the program, then each command.
///
/// # Errors
///
/// If it can't be printed.
pub(super) fn man() -> Result<(), Failure> {
    print(&page(flags::command()).map_err(Failure::Print)?)
}

fn print(text: &[u8]) -> Result<(), Failure> {
    Screen::new().print(&String::from_utf8_lossy(text)).map_err(Failure::Print)
}

fn page(mut command: Command) -> io::Result<Vec<u8>> {
    command.build();
    let mut page = Vec::new();
    let whole = Man::new(command.clone()).manual("User Commands");
    whole.render_title(&mut page)?;
    whole.render_name_section(&mut page)?;
    whole.render_synopsis_section(&mut page)?;
    whole.render_description_section(&mut page)?;
    whole.render_options_section(&mut page)?;
    for part in command.get_subcommands().filter(|part| !part.is_hide_set()) {
        section(part, &mut page)?;
    }
    whole.render_extra_section(&mut page)?;
    whole.render_version_section(&mut page)?;
    Ok(page)
}

/// A command's own page, as a section of the program's.
fn section(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let own = Man::new(command.clone());
    let mut text = Vec::new();
    own.render_synopsis_section(&mut text)?;
    own.render_description_section(&mut text)?;
    own.render_options_section(&mut text)?;
    let text = String::from_utf8_lossy(&text).replace("\n.SH ", "\n.SS ");
    let title = command.get_name().to_uppercase();
    page.extend_from_slice(format!(".SH \"COMMAND {title}\"\n{text}").as_bytes());
    Ok(())
}
