package org.snu.ids.ha.ma;

import java.util.Arrays;

/**
 * Numbers tuples of longs, of which only few hundred differ, so that a cached token can hold two bytes instead.
 *
 * <p>Any thread may ask for the number of a tuple. The parts of a tuple may be read by threads that got its number
 * through a lock, as those of TokenCache do. Numbers are never given up.
 */
final class Interned {
    static final int MOST = 1 << 14;
    private static final int PLACES = 4 * MOST;

    private final int width;
    private final long[] parts;
    private final short[] numbers = new short[PLACES]; // plus one
    private int count;

    Interned(int width) {
        this.width = width;
        parts = new long[width * MOST];
    }

    /** The number of a tuple, or -1 if there is no room for another one. */
    synchronized int number(long... tuple) {
        int place = Arrays.hashCode(tuple) * 0x9E3779B1 >>> 16;
        for (; numbers[place] != 0; place = place + 1 & PLACES - 1) {
            int number = numbers[place] - 1;
            if (Arrays.equals(parts, number * width, (number + 1) * width, tuple, 0, width)) {
                return number;
            }
        }
        if (count == MOST) {
            return -1;
        }
        System.arraycopy(tuple, 0, parts, count * width, width);
        numbers[place] = (short) (count + 1);
        return count++;
    }

    long part(int number, int index) {
        return parts[number * width + index];
    }
}
