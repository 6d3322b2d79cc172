// What TypeScript accepts of clients/js, and what it refuses.
import {Playhead, type DropReason} from "../../clients/js/playhead.js";

const reasons: DropReason[] = [];
const playhead = new Playhead({url: "https://events.example.com/events", maxEvents: 100, onDrop: (reason) => reasons.push(reason)});
const taken: boolean = playhead.send({type: "play", position: 0});
const stored: Promise<boolean> = playhead.flush();
export const counts: number[] = [playhead.pending, playhead.dropped];
export const outcomes = [taken, stored, playhead.close()];

// @ts-expect-error: there is no address.
new Playhead({sessionId: "s-1"});
// @ts-expect-error: an event is an object.
playhead.send("play");
// @ts-expect-error: counts are the client's.
playhead.dropped = 0;
