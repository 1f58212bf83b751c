package org.snu.ids.ha.ma;

import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;

/**
 * Analyzes a document, or a part of one, in one call: UTF-16LE bytes in, morphemes and boundaries as bytes out.
 *
 * <p>The four stages are those of konlpy's KkmaInterface.morphAnalyzer. Bytes are used because JPype converts
 * strings more slowly, and fails if Kkma splits a surrogate pair. The two halves are joined again here.
 *
 * <p>The answer is little endian. It begins with an int32 status. If that is 0, there follow
 * - int32 tokens and int32 characters over the budget, int32 n (morphemes), int32 m (boundaries),
 * - int32[n] ends of the morphemes in their joined text, int32[m] boundaries in the document (in code points),
 * - the joined morphemes in UTF-16LE.
 * Otherwise the message of the exception follows, in UTF-16LE.
 */
public final class DocumentAnalyzer {
    static final int DONE = 0;
    static final int FAILED = 1;
    static final int OUT_OF_MEMORY = 2;

    private static boolean loaded;

    private DocumentAnalyzer() {}

    public static synchronized boolean isLoaded() {
        return loaded;
    }

    /**
     * Loads the dictionaries, without Kkma's messages, from what `prepared` returned once, or, given null, from Kkma's
     * texts. To be called before several threads analyze. Returns whether it was done now and from texts.
     */
    public static synchronized boolean load(ByteBuffer prepared) throws ReflectiveOperationException {
        if (loaded) {
            return false;
        }
        boolean accelerated = Boolean.getBoolean("kogpt.accelerated");
        PrintStream out = System.out;
        System.setOut(new PrintStream(new OutputStream() {
            @Override
            public void write(int b) {}
        }));
        try {
            if (prepared != null) {
                Prepared.read(prepared);
            } else if (accelerated) {
                Prepared.collect();
                System.gc(); // shrinks the heap to what remains
            }
            byte[] answer = analyze(bytes("시작"), new Budget(2));
            if (answer[0] != DONE) {
                throw new IllegalStateException(new String(answer, 4, answer.length - 4, StandardCharsets.UTF_16LE));
            }
            loaded = true;
            return accelerated && prepared == null;
        } finally {
            System.setOut(out);
        }
    }

    /** The loaded dictionaries as bytes, for `load`. */
    public static byte[] prepared() {
        return Prepared.bytes();
    }

    /** Frees the memory of what is remembered of earlier documents. */
    public static void forget() {
        TokenCache.forget();
    }

    /** Analyzes a part of a document within the document's budget. Never throws. */
    public static byte[] analyze(byte[] piece, Budget budget) {
        budget.open();
        try {
            String text = ByteBuffer.wrap(piece).order(ByteOrder.LITTLE_ENDIAN).asCharBuffer().toString();
            MorphemeAnalyzer analyzer = new MorphemeAnalyzer();
            List<MExpression> expressions = analyzer.analyze(text);
            expressions = analyzer.leaveJustBest(analyzer.postProcess(expressions));
            return encode(text, analyzer.divideToSentences(expressions), budget);
        } catch (OutOfMemoryError error) {
            return message(OUT_OF_MEMORY, error);
        } catch (Throwable error) {
            return message(FAILED, error);
        } finally {
            Budget.close();
        }
    }

    private static byte[] message(int status, Throwable error) {
        byte[] text = bytes(error.toString());
        return buffer(4 + text.length).putInt(status).put(text).array();
    }

    /** Unlike String.getBytes, keeps lone surrogates. */
    private static byte[] bytes(String string) {
        ByteBuffer buffer = buffer(2 * string.length());
        buffer.asCharBuffer().put(string);
        return buffer.array();
    }

    private static ByteBuffer buffer(int bytes) {
        return ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }

    private static byte[] encode(String text, List<Sentence> sentences, Budget budget) {
        int shift = 0; // Kkma counts from the first character after trim()
        while (shift < text.length() && text.charAt(shift) <= ' ') {
            shift++;
        }
        BitSet cuts = new BitSet(text.length());
        int[] ends = new int[text.length() + 16];
        int count = 0;
        StringBuilder joined = new StringBuilder(text.length() * 2);
        int points = 0;
        for (Sentence sentence : sentences) {
            for (Eojeol eojeol : sentence) {
                for (Morpheme morpheme : eojeol) {
                    String string = morpheme.string;
                    int start = morpheme.index + shift;
                    if (start > 0 && start < text.length()) {
                        cuts.set(start);
                    }
                    boolean half = count > 0 && !string.isEmpty() && joined.length() > 0
                            && Character.isLowSurrogate(string.charAt(0))
                            && Character.isHighSurrogate(joined.charAt(joined.length() - 1));
                    joined.append(string);
                    points += string.codePointCount(0, string.length()) - (half ? 1 : 0);
                    if (half) {
                        count--;
                    }
                    if (count == ends.length) {
                        ends = Arrays.copyOf(ends, 2 * count);
                    }
                    ends[count++] = points;
                }
            }
        }
        int[] header = {DONE, budget.tokens, budget.characters, count, cuts.cardinality()};
        return pack(header, ends, codePoints(text, cuts), joined);
    }

    /** The boundaries as code point offsets, without those inside a surrogate pair. */
    private static int[] codePoints(String text, BitSet cuts) {
        int[] offsets = new int[cuts.cardinality()];
        int count = 0;
        int pairs = 0;
        int seen = 0;
        for (int cut = cuts.nextSetBit(0); cut >= 0; cut = cuts.nextSetBit(cut + 1)) {
            for (; seen < cut; seen++) {
                if (isInsidePair(text, seen)) {
                    pairs++;
                }
            }
            if (!isInsidePair(text, cut)) {
                offsets[count++] = cut - pairs;
            }
        }
        return Arrays.copyOf(offsets, count);
    }

    private static boolean isInsidePair(String text, int index) {
        return index > 0
                && Character.isLowSurrogate(text.charAt(index))
                && Character.isHighSurrogate(text.charAt(index - 1));
    }

    private static byte[] pack(int[] header, int[] ends, int[] cuts, StringBuilder joined) {
        byte[] text = bytes(joined.toString());
        int count = header[3];
        header[4] = cuts.length;
        ByteBuffer answer = buffer(4 * (header.length + count + cuts.length) + text.length);
        answer.asIntBuffer().put(header).put(ends, 0, count).put(cuts);
        answer.position(answer.capacity() - text.length);
        return answer.put(text).array();
    }
}
