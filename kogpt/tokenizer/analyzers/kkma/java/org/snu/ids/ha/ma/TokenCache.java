package org.snu.ids.ha.ma;

import java.nio.ByteBuffer;
import java.util.Arrays;

/**
 * The analyses of tokens seen before, as bytes: no objects for the garbage collector to follow.
 *
 * <p>A record is valid for its token where the token before gives the same answers (Context). Records are written one
 * after the other into a ring of MEMORY bytes in all, which is allocated as it fills; the oldest are overwritten. One
 * that is found in the older half is written again, so that what is used often stays. A chain leads from a hash to its
 * records, the newest first: a link to an overwritten one ends it. All threads share the cache, in PARTS with a lock
 * each.
 *
 * <p>Record: int64 the next in the chain, int32 hash, int32 size of the record, byte length of the token, its
 * characters, byte number of questions, the questions, the analysis (Analyses).
 */
final class TokenCache {
    static final int HEADER = 16;
    static final int LONGEST = 64;
    private static final int PARTS = 16;
    private static final int MEMORY = 128 << 20;
    private static final int CHUNK = 1 << 18;
    private static final int CHAINS = 1 << 15;
    private static final TokenCache[] CACHE = new TokenCache[PARTS];

    static {
        for (int i = 0; i < PARTS; i++) {
            CACHE[i] = new TokenCache(MEMORY / PARTS / CHUNK);
        }
    }

    private final long[] chains = new long[CHAINS];
    private final ByteBuffer[] chunks;
    private long end = CHUNK; // of the last record; no record begins before

    private TokenCache(int size) {
        chunks = new ByteBuffer[size];
    }

    private static int hash(String token) {
        int hash = token.hashCode() * 0x9E3779B1;
        return hash ^ hash >>> 15;
    }

    private static TokenCache part(int hash) {
        return CACHE[hash >>> 28];
    }

    /** The analysis of a token after the token that the context holds, positioned at its first byte; or null. */
    static ByteBuffer find(String token, Context context) {
        int hash = hash(token);
        return part(hash).find(hash, token, context);
    }

    /** Adds a record. Its link, hash and size are filled in here. */
    static void add(String token, ByteBuffer record) {
        int hash = hash(token);
        record.putInt(8, hash);
        record.putInt(12, record.limit());
        part(hash).add(hash, record.array(), record.limit());
    }

    /** Forgets all, so that the memory is free. */
    static void forget() {
        for (TokenCache part : CACHE) {
            part.clear();
        }
    }

    private synchronized void clear() {
        Arrays.fill(chunks, null);
        Arrays.fill(chains, 0);
        end = CHUNK;
    }

    private synchronized ByteBuffer find(int hash, String token, Context context) {
        long oldest = Math.max(1, end / CHUNK + 1 - chunks.length) * CHUNK;
        long old = (end / CHUNK - chunks.length / 2) * CHUNK;
        for (long at = chains[hash & CHAINS - 1]; at >= oldest; ) {
            ByteBuffer chunk = chunks[(int) (at / CHUNK % chunks.length)];
            int place = (int) (at % CHUNK);
            if (chunk.getInt(place + 8) == hash && isOf(token, chunk, place + HEADER)) {
                int questions = place + HEADER + 1 + 2 * token.length();
                int count = chunk.get(questions);
                if (context.agrees(chunk, questions + 1, count)) {
                    byte[] record = new byte[chunk.getInt(place + 12)];
                    System.arraycopy(chunk.array(), place, record, 0, record.length);
                    if (at < old) {
                        add(hash, record, record.length);
                    }
                    return ByteBuffer.wrap(record).position(questions - place + 1 + 2 * count);
                }
            }
            at = chunk.getLong(place);
        }
        return null;
    }

    private static boolean isOf(String token, ByteBuffer chunk, int place) {
        int length = token.length();
        if (chunk.get(place) != length) {
            return false;
        }
        for (int i = 0; i < length; i++) {
            if (chunk.getChar(place + 1 + 2 * i) != token.charAt(i)) {
                return false;
            }
        }
        return true;
    }

    private synchronized void add(int hash, byte[] record, int size) {
        if (end % CHUNK + size > CHUNK) {
            end += CHUNK - end % CHUNK;
        }
        int slot = (int) (end / CHUNK % chunks.length);
        if (chunks[slot] == null) {
            chunks[slot] = ByteBuffer.allocate(CHUNK);
        }
        int place = (int) (end % CHUNK);
        System.arraycopy(record, 0, chunks[slot].array(), place, size);
        chunks[slot].putLong(place, chains[hash & CHAINS - 1]);
        chains[hash & CHAINS - 1] = end;
        end += size;
    }
}
