package org.snu.ids.ha.ma;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * Arrays one after the other as bytes (little endian), each behind its length.
 *
 * <p>One sequence of calls serves both directions. When reading, a call returns the next array, in the given one if
 * that has its length. When writing, it appends the given array and returns it.
 */
final class ArrayFile {
    private static final char NULL = 0xFFFF;

    private final ByteBuffer in;
    private final ByteArrayOutputStream out;

    private ArrayFile(ByteBuffer in, ByteArrayOutputStream out) {
        this.in = in;
        this.out = out;
    }

    static ArrayFile reading(ByteBuffer content) {
        return new ArrayFile(content.order(ByteOrder.LITTLE_ENDIAN), null);
    }

    static ArrayFile writing() {
        return new ArrayFile(null, new ByteArrayOutputStream(1 << 26));
    }

    byte[] written() {
        return out.toByteArray();
    }

    long[] longs(long[] array) {
        if (in == null) {
            ByteBuffer bytes = sized(array.length, Long.BYTES);
            bytes.asLongBuffer().put(array);
            return append(bytes, array);
        }
        int length = in.getInt();
        long[] found = array != null && array.length == length ? array : new long[length];
        in.asLongBuffer().get(found);
        in.position(in.position() + Long.BYTES * length);
        return found;
    }

    int[] ints(int[] array) {
        if (in == null) {
            ByteBuffer bytes = sized(array.length, Integer.BYTES);
            bytes.asIntBuffer().put(array);
            return append(bytes, array);
        }
        int length = in.getInt();
        int[] found = array != null && array.length == length ? array : new int[length];
        in.asIntBuffer().get(found);
        in.position(in.position() + Integer.BYTES * length);
        return found;
    }

    float[] floats(float[] array) {
        if (in == null) {
            ByteBuffer bytes = sized(array.length, Float.BYTES);
            bytes.asFloatBuffer().put(array);
            return append(bytes, array);
        }
        int length = in.getInt();
        float[] found = array != null && array.length == length ? array : new float[length];
        in.asFloatBuffer().get(found);
        in.position(in.position() + Float.BYTES * length);
        return found;
    }

    char[] chars(char[] array) {
        if (in == null) {
            ByteBuffer bytes = sized(array.length, Character.BYTES);
            bytes.asCharBuffer().put(array);
            return append(bytes, array);
        }
        int length = in.getInt();
        char[] found = array != null && array.length == length ? array : new char[length];
        in.asCharBuffer().get(found);
        in.position(in.position() + Character.BYTES * length);
        return found;
    }

    /** Strings of less than 65,535 characters, and nulls. */
    String[] strings(String[] array) {
        if (in == null) {
            char[] lengths = new char[array.length];
            StringBuilder joined = new StringBuilder();
            for (int i = 0; i < array.length; i++) {
                lengths[i] = array[i] == null ? NULL : (char) array[i].length();
                joined.append(array[i] == null ? "" : array[i]);
            }
            chars(lengths);
            chars(joined.toString().toCharArray());
            return array;
        }
        char[] lengths = chars(null);
        char[] joined = chars(null);
        String[] found = array != null && array.length == lengths.length ? array : new String[lengths.length];
        int start = 0;
        for (int i = 0; i < found.length; i++) {
            if (lengths[i] != NULL) {
                found[i] = new String(joined, start, lengths[i]);
                start += lengths[i];
            }
        }
        return found;
    }

    private static ByteBuffer sized(int length, int bytes) {
        ByteBuffer buffer = ByteBuffer.allocate(Integer.BYTES + bytes * length).order(ByteOrder.LITTLE_ENDIAN);
        return buffer.putInt(length);
    }

    private <A> A append(ByteBuffer bytes, A array) {
        out.write(bytes.array(), 0, bytes.capacity());
        return array;
    }
}
