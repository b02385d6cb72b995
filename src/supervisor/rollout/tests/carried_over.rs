//! A planner that is carried over at any time goes on as if it weren't.

use super::*;
use crate::handover::{Carry, decode, encode};
use crate::supervisor::limits::LimitReason;

fn causes() -> [Cause; 4] {
    let (used, limit) = (u64::MAX, 1 << 20);
    let age = Duration::new(7, 999_999_999);
    [
        Cause::Limit(LimitReason::Memory { used, limit }),
        Cause::Limit(LimitReason::Age { age, limit: age }),
        Cause::Limit(LimitReason::Connections { served: used, limit }),
        Cause::Asked,
    ]
}

fn triggers() -> [Trigger; 4] {
    let odd = std::os::unix::ffi::OsStringExt::from_vec(vec![b'/', 0xff]);
    let odd: std::ffi::OsString = odd;
    [Trigger::Signal, Trigger::Command, Trigger::Watch(odd.into()), Trigger::Cron]
}

fn change(planner: &mut Planner, fact: u8, slot: SlotId, now: Timestamp) -> String {
    let choice = slot.index() % 4;
    match fact {
        0 => format!("{}", planner.begin(triggers()[choice].clone(), slots(6))),
        1 => format!("{:?}", planner.want(slot, causes()[choice], now)),
        2 => format!("{:?}", planner.order(slot)),
        3 | 4 => format!("{:?}", planner.replaced(slot)),
        5 => format!("{:?}", planner.failed(slot, "why", now)),
        6 => format!("{:?}", planner.removed(slot)),
        7 => format!("{:?}", planner.join(slot)),
        8 => format!("{:?}", planner.stop()),
        _ => String::new(),
    }
}

proptest! {
    #[test]
    fn whenever_it_is_carried_over_it_goes_on_the_same(
        facts in prop::collection::vec((0..30_u8, 0..6_u16), 1..120), parallel in 1..4_u16,
    ) {
        let settings = RolloutSettings { parallel, ..ONE };
        let mut planner = Planner::default();
        for (second, (fact, slot)) in (0..).zip(facts) {
            // Most end what is under way; the end of everything is rare.
            let fact = if fact == 29 { 8 } else { fact % 8 };
            let (slot, now) = (SlotId(slot), at(10 * second));
            let bytes = encode(&planner.snapshot()).unwrap();
            let mut read = Planner::restore(decode(&bytes).unwrap());
            prop_assert_eq!(&read, &planner);
            prop_assert_eq!(
                change(&mut read, fact, slot, now), change(&mut planner, fact, slot, now)
            );
            prop_assert_eq!(read.steps(&settings), planner.steps(&settings));
            planner = read;
        }
    }
}
