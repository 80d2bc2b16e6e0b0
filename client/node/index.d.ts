import { EventEmitter } from 'node:events';

/** What is in the cookie; or a key of 32 bytes, for sessions known from a listing. */
export type Sid = string | Uint8Array;

type Callback<T = void> = [T] extends [void] ? (error?: any) => void : (error: any, value?: T) => void;

export interface SessiondStoreOptions {
  /** Where the daemon is; several addresses in an array, or separated by commas. Default: `SESSIOND_URL`, else `http://127.0.0.1:7377`. */
  url?: string | readonly string[];
  /** The same as `url`. */
  urls?: string | readonly string[];
  /** The daemon's token, which also decides the namespace. Default: `SESSIOND_TOKEN`, else none. */
  token?: string;
  /** Whose sessions, for an admin's token, which has no namespace of its own. Default: the token's, or `default`. */
  namespace?: string;
  /** Options for TLS, as `tls.connect` takes them, such as `ca`. */
  tls?: { [name: string]: unknown };
  /** ms within which every call is answered, if only with an error. Default: 2000. */
  deadline?: number;
  /** ms that a session lives when its cookie ends with the browser. Default: the daemon's. */
  ttl?: number;
  /** A session that was renewed less than this many ms ago is not renewed again. Default: 0. */
  touchAfter?: number;
  /** What `all` gives. Default: `array`. */
  all?: 'array' | 'object';
  /** What becomes of a save when somebody else has changed the session. Default: `merge`. */
  concurrency?: 'merge' | 'overwrite' | 'reject';
  /** Whose session it is. Default: the id that passport keeps, if any. */
  user?: (session: any) => string | number | bigint | null | undefined;
  /** Emit `disconnect` and `connect`: express-session then serves requests without a session during an outage. Default: false. */
  disconnectEvents?: boolean;
}

/** A line of a listing. Instants are ms since the epoch, by the daemon's clock. */
export interface SessionEntry {
  key: Buffer;
  user: string | null;
  meta: { [name: string]: string } | null;
  createdAt: number;
  renewedAt: number;
  expiresAt: number;
  version: number;
  /** Bytes of its data. */
  size: number;
}

/** The end of a session, or with the kind `gap` that some may be missing. */
export interface SessionEvent {
  /** `events({ after })` goes on behind it. */
  id: string;
  /** `destroyed`, `rotated`, `evicted`, `expired` or `gap`; a later daemon may know others. */
  kind: string;
  /** Null for a gap. */
  key: Buffer | null;
  user: string | null;
  at: number | null;
  /** Of `rotated`: where the session lives on. */
  newKey: Buffer | null;
  /** Of `gap`: `overrun`, too far behind; `restart`, another start or another daemon. */
  reason: string | null;
}

/** An express-session store in a sessiond daemon. Every method takes a callback or returns a promise. */
export class SessiondStore extends EventEmitter {
  constructor(options?: SessiondStoreOptions);

  /** The session, or null when it is not alive. */
  get(sid: Sid, callback: (error: any, session?: any) => void): void;
  get(sid: Sid): Promise<any>;

  /** Saves the session. One that was loaded and has ended since then stays ended. */
  set(sid: Sid, session: any, callback: Callback): void;
  set(sid: Sid, session: any, callback?: Callback): Promise<void>;

  /** Renews the session. Nothing happens when it is not alive. */
  touch(sid: Sid, session: any, callback: Callback): void;
  touch(sid: Sid, session: any, callback?: Callback): Promise<void>;

  /** Ends the session, for good. */
  destroy(sid: Sid, callback: Callback): void;
  destroy(sid: Sid, callback?: Callback): Promise<void>;

  /** Every living session: an array, or an object by written key. */
  all(callback: (error: any, sessions?: any) => void): void;
  all(): Promise<any>;

  /** How many sessions are alive. */
  length(callback: (error: any, length?: number) => void): void;
  length(): Promise<number>;

  /** Ends every session. */
  clear(callback: Callback): void;
  clear(callback?: Callback): Promise<void>;

  /** The keys of all living sessions; every method takes them. */
  ids(callback: Callback<Buffer[]>): void;
  ids(): Promise<Buffer[]>;

  /** Ends the request's session and starts an empty one under a new id. */
  regenerate(req: any, callback: (error?: any) => any): void;
  regenerate(req: any): Promise<void>;

  /** For express-session and those who use it without a request. */
  load(sid: string, callback: (error: any, session?: any) => any): void;
  createSession(req: any, data: any): any;

  /** The living sessions of a user, or of everybody. */
  list(of: { user?: string | number } | undefined, callback: Callback<SessionEntry[]>): void;
  list(of?: { user?: string | number }): Promise<SessionEntry[]>;

  /** Ends all sessions of a user but the one excepted ("log out everywhere"); how many. */
  destroyAll(of: { user: string | number; except?: Sid }, callback: Callback<number>): void;
  destroyAll(of: { user: string | number; except?: Sid }): Promise<number>;

  /** Gives the request's session a new id and keeps what is in it. The old id works on for `grace` ms. */
  rotate(req: any, how: { grace?: number } | undefined, callback: Callback): void;
  rotate(req: any, how?: { grace?: number }): Promise<void>;

  /**
   * What ends, as it ends, on a connection of its own that keeps the process running: leave the loop, or `close`. It comes
   * back by itself after a broken connection, and goes on where it was.
   */
  events(from?: { after?: string }): AsyncIterableIterator<SessionEvent>;

  /** Closes the connections. Not needed to let the process end, but for `events`. */
  close(): void;
}

export default SessiondStore;

/** The key that a sid stands for: its SHA-256. */
export function keyOf(sid: Sid): Buffer;
/** A key as listings and logs show it: `~` and 43 characters. */
export function keyName(key: Uint8Array): string;
/** The key that `keyName` wrote. */
export function keyFromName(name: string): Buffer;

/** Base of everything that this package raises. */
export class SessiondError extends Error {
  readonly code?: string;
}
/** No answer was had. Nothing is known about the session. */
export class Unavailable extends SessiondError {
  /** True when this was a write that may or may not have been carried out. */
  readonly outcomeUnknown: boolean;
  readonly status: number;
}
/** No connection could be made to any of the addresses. */
export class ConnectFailed extends Unavailable {}
/** The answer did not come within the deadline. */
export class DeadlineExceeded extends Unavailable {}
/** The daemon answered that it could not carry out the call. */
export class Failed extends Unavailable {
  readonly code: string;
}
/** The daemon refused the connection, or this call, for its credentials; nothing was changed. */
export class AuthError extends SessiondError {
  /** 401 for a token that is not valid, 403 for one that may not do this. */
  readonly answered: number;
}
/** An argument, an option or the session itself is wrong. */
export class InvalidRequest extends SessiondError {
  readonly code: string;
}
/** The call needed a living session and there is none. */
export class Missing extends SessiondError {}
/** A session lives under the id that was to be new. */
export class Exists extends SessiondError {}
/** The session was changed since it was loaded; nothing was written. */
export class Conflict extends SessiondError {
  /** The version that the session is at now. */
  readonly version: number;
  readonly status: number;
}
