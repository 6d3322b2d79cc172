/** Why an event was dropped: by the client, or a reason or code of an answer of Playhead's. */
export type DropReason = "queue_full" | "too_large" | "not_json" | "closed" | "expired" | (string & {});

export interface PlayheadOptions {
  /** Where events are posted. */
  url: string;
  /** The `session_id` of each event: one viewing. A random one by default. */
  sessionId?: string;
  /** Milliseconds that an event waits for others to share its request; 5,000 by default. */
  interval?: number;
  /** Events that wait at most, those under way included; 10,000 by default. */
  maxEvents?: number;
  /** Bytes of JSON that wait at most, as UTF-8; 1 MiB by default. */
  maxBytes?: number;
  /** Called for each event that is dropped. What it throws is ignored. */
  onDrop?: (reason: DropReason, event: unknown) => void;
}

/** Sends events until Playhead has stored them. Nothing here throws. */
export declare class Playhead {
  constructor(options: PlayheadOptions);
  /** How many events were dropped. */
  readonly dropped: number;
  /** How many events are not known to be stored. */
  readonly pending: number;
  /**
   * Queues an event with an `id`, the `session_id`, the `time` (milliseconds since 1970) and a `sequence` number from 0 of its own;
   * whether it was taken. Each call counts in `sequence`, so a gap in what landed is what was dropped.
   */
  send(event: object): boolean;
  /** Sends what waits, unless a retry is due later; whether nothing waits any more. */
  flush(): Promise<boolean>;
  /** Takes no more events and sends what waits; whether all of it has an outcome. What has none is tried again, by the next page too. */
  close(): Promise<boolean>;
}
