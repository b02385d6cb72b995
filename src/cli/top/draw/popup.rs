//! Boxes over everything else: a question before an order, help.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Stylize;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Clear, Paragraph};

use crate::cli::top::order::Order;
use crate::cli::top::state::Popup;
use crate::cli::top::theme::Look;

/// Characters that it is wide, its border included.
const WIDTH: u16 = 60;

const HELP: &str = "\
up down k j   select a worker; PgUp PgDn Home End g G too
r             reload: replace all workers, slot by slot
d u R         drain, undrain, restart the selected slot
+ -           one worker more, one worker fewer
s             sort by slot, connections, cpu, memory,
              hand-offs
e             more room for events, or less
q Ctrl-C      quit
Ctrl-L        draw everything again

Orders are given after a yes. Lines beside figures show
the last seconds; of totals, what came in each.
hand/s    connections handed over in the last second
p50, p99  from accept to acknowledgement, lately
load      connections, beside the most of any worker";

pub(super) fn draw(frame: &mut Frame<'_>, popup: Popup, look: Look) {
    let block = Block::bordered().border_set(look.border());
    match popup {
        Popup::Confirm(order) => confirm(frame, order, block),
        Popup::Help => {
            let block = block.title("keys".bold()).title_bottom("any key closes this");
            show(frame, Text::from(HELP), block);
        }
    }
}

fn confirm(frame: &mut Frame<'_>, order: Order, block: Block<'_>) {
    let (question, meaning) = order.question();
    let answers = vec![" y ".reversed(), " yes   ".into(), " n ".reversed(), " no ".into()];
    let text = Text::from(vec![Line::from(question.bold()), Line::from(meaning)]);
    // At the border, so that it is seen however small all is.
    show(frame, text, block.title_bottom(Line::from(answers)));
}

/// In the middle of the screen, or in as much of it as there is.
fn show(frame: &mut Frame<'_>, text: Text<'_>, block: Block<'_>) {
    let screen = frame.area();
    let lines = u16::try_from(text.lines.len()).unwrap_or(u16::MAX);
    let (width, height) = (WIDTH.min(screen.width), lines.saturating_add(2).min(screen.height));
    let (left, up) = ((screen.width - width) / 2, (screen.height - height) / 2);
    let area = Rect { x: screen.x + left, y: screen.y + up, width, height };
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(text).block(block), area);
}
